/* nucleo_u575zi_q: NUCLEO-U575ZI-Q (Cortex-M33, 160 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "nucleo_u575zi_q"
#define TR_CLOCK_HZ 160000000u
#define TR_OSCILLATOR_HZ 0u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 0u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 4u
#define TR_CONSOLE_VERSION 2 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40013800u
#define TR_CONSOLE_TX TR_PIN('A', 9u, 7u)
#define TR_CONSOLE_RX TR_PIN('A', 10u, 7u)
#define TR_COPIES_WEIGHTS /* memory.ld has RAM for it */

#endif
