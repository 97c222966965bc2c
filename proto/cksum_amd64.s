#include "textflag.h"

// The bytes of a block in the reverse order: a block is a polynomial whose highest
// coefficient is the first byte's highest bit.
DATA reverseBytes<>+0(SB)/8, $0x08090A0B0C0D0E0F
DATA reverseBytes<>+8(SB)/8, $0x0001020304050607
GLOBL reverseBytes<>(SB), RODATA|NOPTR, $16

// x^1024 and x^1088, x^512 and x^576, and x^128 and x^192, modulo POSIX's polynomial
// 0x104C11DB7: what the low and the high half of a block are multiplied with to be
// taken 1024, 512 or 128 bits on.
DATA fold1024<>+0(SB)/8, $0x00000000567FDDEB
DATA fold1024<>+8(SB)/8, $0x0000000010BD4D7C
GLOBL fold1024<>(SB), RODATA|NOPTR, $16

DATA fold512<>+0(SB)/8, $0x00000000E6228B11
DATA fold512<>+8(SB)/8, $0x000000008833794C
GLOBL fold512<>(SB), RODATA|NOPTR, $16

DATA fold128<>+0(SB)/8, $0x00000000E8A45605
DATA fold128<>+8(SB)/8, $0x00000000C5B9CD4C
GLOBL fold128<>(SB), RODATA|NOPTR, $16

// FOLD takes X on by as much as K says and adds what is at address SI+at.
#define FOLD(at, K, X) \
	VPCLMULQDQ $0x11, K, X, X4  \
	VPCLMULQDQ $0x00, K, X, X5  \
	VMOVDQU    at(SI), X6       \
	VPSHUFB    X15, X6, X6      \
	VPXOR      X4, X5, X4       \
	VPXOR      X4, X6, X

// JOIN takes A on by one block and adds it to B.
#define JOIN(A, B) \
	VPCLMULQDQ $0x11, X13, A, X4 \
	VPCLMULQDQ $0x00, X13, A, X5 \
	VPXOR      X4, X5, X4        \
	VPXOR      X4, B, B

// func foldBlocks(rest *[16]byte, p *byte, n int, register uint32)
//
// By the paper "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
// Instruction" (Intel, 2009), for bits that are not reflected, up to one block.
TEXT ·foldBlocks(SB), NOSPLIT, $0-28
	MOVQ rest+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL register+24(FP), AX

	VMOVDQU reverseBytes<>(SB), X15
	VMOVDQU fold512<>(SB), X14
	VMOVDQU fold128<>(SB), X13

	VMOVDQU (SI), X0
	VMOVDQU 16(SI), X1
	VMOVDQU 32(SI), X2
	VMOVDQU 48(SI), X3
	VPSHUFB X15, X0, X0
	VPSHUFB X15, X1, X1
	VPSHUFB X15, X2, X2
	VPSHUFB X15, X3, X3

	// The register is added to the first 32 bits.
	VMOVD   AX, X4
	VPSLLDQ $12, X4, X4
	VPXOR   X4, X0, X0
	JMP     next

loop:
	FOLD(0, X14, X0)
	FOLD(16, X14, X1)
	FOLD(32, X14, X2)
	FOLD(48, X14, X3)

next:
	ADDQ $64, SI
	SUBQ $64, CX
	JNZ  loop

	JOIN(X0, X1)
	JOIN(X1, X2)
	JOIN(X2, X3)
	VPSHUFB X15, X3, X3
	VMOVDQU X3, (DI)
	RET

// FOLDWIDE takes the four blocks in X on by 1024 bits and adds what is at address
// SI+at.
#define FOLDWIDE(at, X) \
	VPCLMULQDQ $0x11, Z14, X, Z4   \
	VPCLMULQDQ $0x00, Z14, X, Z5   \
	VMOVDQU64  at(SI), Z6          \
	VPSHUFB    Z15, Z6, X          \
	VPTERNLOGQ $0x96, Z4, Z5, X

// JOINNEXT takes X3 on by one block and adds the block at that place of Z.
#define JOINNEXT(place, Z) \
	VPCLMULQDQ    $0x11, X13, X3, X4 \
	VPCLMULQDQ    $0x00, X13, X3, X5 \
	VEXTRACTI32X4 place, Z, X3       \
	VPXOR         X4, X3, X3         \
	VPXOR         X5, X3, X3

// func foldWide(rest *[16]byte, p *byte, n int, register uint32)
//
// As foldBlocks, with four blocks in a register.
TEXT ·foldWide(SB), NOSPLIT, $0-28
	MOVQ rest+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL register+24(FP), AX

	VBROADCASTI32X4 reverseBytes<>(SB), Z15
	VBROADCASTI32X4 fold1024<>(SB), Z14
	VMOVDQU         fold128<>(SB), X13

	VMOVDQU64 (SI), Z0
	VMOVDQU64 64(SI), Z1
	VPSHUFB   Z15, Z0, Z0
	VPSHUFB   Z15, Z1, Z1

	// The register is added to the first 32 bits.
	VMOVD   AX, X4
	VPSLLDQ $12, X4, X4 // and nothing above: it is the first block's
	VPXORQ  Z4, Z0, Z0
	JMP     nextWide

loopWide:
	FOLDWIDE(0, Z0)
	FOLDWIDE(64, Z1)

nextWide:
	ADDQ $128, SI
	SUBQ $128, CX
	JNZ  loopWide

	VMOVDQA X0, X3
	JOINNEXT($1, Z0)
	JOINNEXT($2, Z0)
	JOINNEXT($3, Z0)
	JOINNEXT($0, Z1)
	JOINNEXT($1, Z1)
	JOINNEXT($2, Z1)
	JOINNEXT($3, Z1)
	VPSHUFB X15, X3, X3
	VMOVDQU X3, (DI)
	VZEROUPPER
	RET
