/* nrf52840_dk: nRF52840 DK (Cortex-M4F, 64 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "nrf52840_dk"
#define TR_CLOCK_HZ 64000000u
#define TR_OSCILLATOR_HZ 0u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 0u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 2u
#define TR_CONSOLE_VERSION 0 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40002000u
#define TR_CONSOLE_TX 6u
#define TR_CONSOLE_RX 8u

#endif
