/* nucleo_h743zi: NUCLEO-H743ZI (Cortex-M7, 400 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "nucleo_h743zi"
#define TR_CLOCK_HZ 400000000u
#define TR_OSCILLATOR_HZ 8000000u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 1u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 2u
#define TR_CONSOLE_VERSION 2 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40004800u
#define TR_CONSOLE_TX TR_PIN('D', 8u, 7u)
#define TR_CONSOLE_RX TR_PIN('D', 9u, 7u)
#define TR_COPIES_CODE /* memory.ld has RAM for it */

#endif
