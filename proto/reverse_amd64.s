#include "textflag.h"

// The reverse of each nibble, as the low half of a byte and as the high one.
DATA reversedLow<>+0(SB)/8, $0x0E060A020C040800
DATA reversedLow<>+8(SB)/8, $0x0F070B030D050901
GLOBL reversedLow<>(SB), RODATA|NOPTR, $16

DATA reversedHigh<>+0(SB)/8, $0xE060A020C0408000
DATA reversedHigh<>+8(SB)/8, $0xF070B030D0509010
GLOBL reversedHigh<>(SB), RODATA|NOPTR, $16

DATA nibble<>+0(SB)/1, $0x0F
GLOBL nibble<>(SB), RODATA|NOPTR, $1

// func reverseBlocks(dst, src *byte, n int)
//
// A byte is looked up by halves: its low nibble gives the high one of the result,
// and the other way round.
TEXT ·reverseBlocks(SB), NOSPLIT, $0-24
	MOVQ           dst+0(FP), DI
	MOVQ           src+8(FP), SI
	MOVQ           n+16(FP), CX
	VBROADCASTI128 reversedLow<>(SB), Y0
	VBROADCASTI128 reversedHigh<>(SB), Y1
	VPBROADCASTB   nibble<>(SB), Y2

loop:
	VMOVDQU (SI), Y3
	VMOVDQU 32(SI), Y4
	VPSRLQ  $4, Y3, Y5
	VPSRLQ  $4, Y4, Y6
	VPAND   Y2, Y3, Y3
	VPAND   Y2, Y4, Y4
	VPAND   Y2, Y5, Y5
	VPAND   Y2, Y6, Y6
	VPSHUFB Y3, Y1, Y3
	VPSHUFB Y4, Y1, Y4
	VPSHUFB Y5, Y0, Y5
	VPSHUFB Y6, Y0, Y6
	VPOR    Y3, Y5, Y3
	VPOR    Y4, Y6, Y4
	VMOVDQU Y3, (DI)
	VMOVDQU Y4, 32(DI)
	ADDQ    $64, SI
	ADDQ    $64, DI
	SUBQ    $64, CX
	JNZ     loop
	VZEROUPPER
	RET
