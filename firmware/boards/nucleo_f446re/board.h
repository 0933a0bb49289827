/* nucleo_f446re: NUCLEO-F446RE (Cortex-M4F, 180 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "nucleo_f446re"
#define TR_CLOCK_HZ 180000000u
#define TR_OSCILLATOR_HZ 8000000u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 1u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 5u
#define TR_CONSOLE_VERSION 1 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40004400u
#define TR_CONSOLE_TX TR_PIN('A', 2u, 7u)
#define TR_CONSOLE_RX TR_PIN('A', 3u, 7u)

#endif
