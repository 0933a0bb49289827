/* The host in the place of a board: only a name. */
#ifndef TR_BOARD_H
#define TR_BOARD_H
#define TR_BOARD_NAME "host"
#endif
