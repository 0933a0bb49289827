/* rpi_pico2: Raspberry Pi Pico 2 (RP2350, Cortex-M33, 150 MHz). Written by tinyredux.device.build from its board file; change that, not this. */
#ifndef TR_BOARD_H
#define TR_BOARD_H

#define TR_BOARD_NAME "rpi_pico2"
#define TR_CLOCK_HZ 150000000u
#define TR_OSCILLATOR_HZ 12000000u /* external oscillator; 0: none fitted */
#define TR_OSCILLATOR_BYPASS 0u /* 1: a clock signal on the pin, not a crystal */
#define TR_FLASH_WAIT_STATES 0u
#define TR_CONSOLE_VERSION 0 /* 1: SR, DR (STM32F4); 2: ISR, RDR, TDR */
#define TR_CONSOLE_BASE 0x40070000u
#define TR_CONSOLE_TX 0u
#define TR_CONSOLE_RX 1u

#endif
