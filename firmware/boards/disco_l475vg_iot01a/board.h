/* disco_l475vg_iot01a: B-L475E-IOT01A (Cortex-M4F, 80 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "disco_l475vg_iot01a"
#define TR_CLOCK_HZ 80000000u
#define TR_OSCILLATOR_HZ 0u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 0u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 4u
#define TR_CONSOLE_VERSION 2 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40013800u
#define TR_CONSOLE_TX TR_PIN('B', 6u, 7u)
#define TR_CONSOLE_RX TR_PIN('B', 7u, 7u)

#endif
