/* What stm32f.c asks of stm32f4.c and stm32f7.c. */
#ifndef TR_STM32F_H
#define TR_STM32F_H

#include <stdint.h>

/* Turns the caches on; returns the bits of FLASH_ACR that do it for the flash, wait states left out. */
uint32_t tr_family_caches(void);

#endif
