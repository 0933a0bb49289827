/* disco_f469ni: STM32F469I-DISCO (Cortex-M4F, 180 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "disco_f469ni"
#define TR_CLOCK_HZ 180000000u
#define TR_OSCILLATOR_HZ 8000000u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 0u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 5u
#define TR_CONSOLE_VERSION 1 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40004800u
#define TR_CONSOLE_TX TR_PIN('B', 10u, 7u)
#define TR_CONSOLE_RX TR_PIN('B', 11u, 7u)

#endif
