/* nucleo_l4r5zi: NUCLEO-L4R5ZI (Cortex-M4F, 120 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "nucleo_l4r5zi"
#define TR_CLOCK_HZ 120000000u
#define TR_OSCILLATOR_HZ 0u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 0u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 5u
#define TR_CONSOLE_VERSION 2 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40008000u
#define TR_CONSOLE_TX TR_PIN('G', 7u, 8u)
#define TR_CONSOLE_RX TR_PIN('G', 8u, 8u)
#define TR_COPIES_CODE /* memory.ld has RAM for it */
#define TR_COPIES_WEIGHTS /* memory.ld has RAM for it */

#endif
