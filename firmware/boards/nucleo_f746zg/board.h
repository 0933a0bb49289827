/* nucleo_f746zg: NUCLEO-F746ZG (Cortex-M7, 216 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "nucleo_f746zg"
#define TR_CLOCK_HZ 216000000u
#define TR_OSCILLATOR_HZ 8000000u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 1u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 7u
#define TR_CONSOLE_VERSION 2 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40004800u
#define TR_CONSOLE_TX TR_PIN('D', 8u, 7u)
#define TR_CONSOLE_RX TR_PIN('D', 9u, 7u)
#define TR_COPIES_CODE /* memory.ld has RAM for it */

#endif
