"""Elements of the segments used here, by type and length (X12 005010 segment directory and data element dictionary).

A line is a segment; an element is a letter (i ID, a AN, r R, n N0, d DT, t TM, c composite), its length or lengths, and
`!` where the standard requires it. `*12` says that twelve such follow each other.
"""

from __future__ import annotations

from mappers.x12.table import parse_elements

ROWS = """
AAA i1! a2 i2 i1
AK1 i2! n1-9! a1-12
AK2 i3! a4-9! a1-35
AK9 i1! n1-6! n1-6! n1-6! i1-3*5
AMT i1-3! r1-18! i1
BHT i4! i2! a1-50 d8 t4-8 i2
BPR i1-2! r1-18! i1! i3! i1-10 i2 a3-12 i1-3 a1-35 a10 a9 i2 a3-12 i1-3 a1-35 d8 i1-3 i2 a3-12 i1-3 a1-35
CAS i1-2! i1-5! r1-18! r1-15 i1-5 r1-18 r1-15 i1-5 r1-18 r1-15 i1-5 r1-18 r1-15 i1-5 r1-18 r1-15 i1-5 r1-18 r1-15
CLM a1-38! r1-18 i1-2 i1-2 c i1*5 c i2-3 i1 i1-3 i1 i1 i1-2 i1 i2 i1-2
CLP a1-38! i1-2! r1-18! r1-18! r1-18 i1-2 a1-50 a1-2 i1 i1-2 i1-4 r1-15 r1-10 i1
CN1 i2! r1-18 r1-6 a1-50 r1-6 a1-30
CR1 i2 r1-10 i1 i1 i2 r1-15 a1-55 a1-55 a1-80 a1-80
CR2 n1-9 r1-15 i2-3 i2-3 i2 r1-15 r1-15 i1 i1 a1-80 a1-80 i1
CR3 i1 i2 r1-15 i1 a1-80
CRC i2! i1! i2-3! i2-3*4
CTP i2 i3 r1-17 r1-15 c i3 r1-10 r1-18 i2 a1-10 n1-2
CTX c! i2-3 n1-6 a1-6 c c
CUR i2-3! i3! r4-10 i2-3 i3 i3 i3 d8 t4-8 i3 d8 t4-8 i3 d8 t4-8 i3 d8 t4-8 i3 d8 t4-8
DMG i2-3 a1-35 i1 i1 c i1-2 i2-3 i1-2 r1-15 i1-3 a1-30
DTM i3! d8 t4-8 i2 i2-3 a1-35
DTP i3! i2-3! a1-35!
EB i1-3! i1-3 i1-2 i1-3 a1-50 i1-2 r1-18 r1-10 i2 r1-15 i1 i1 c c
EQ i1-2 c i1-3 i1-3 c
FRM a1-20! i1 a1-50 d8 r1-6
GE n1-6! n1-9!
GS i2! a2-15! a2-15! d8! t4-8! n1-9! i1-2! a1-12!
HCP i2 r1-18 r1-18 a1-50 r1-9 a1-50 r1-18 a1-48 i2 a1-48 i2 r1-15 i2 i1-2 i1-2
HI c! c*11
HL a1-12! a1-12 i1-2! i1
HSD i2 r1-15 i2 r1-6 i1-2 n1-3 i1-2 i1
IEA n1-5! n9!
III i1-3 a1-30 i2 a1-264
IK3 i2-3! n1-6! a1-6 i1-3
IK4 c! n1-4 i1-3! a1-99
IK5 i1! i1-3*5
INS i1! i2! i3 i2-3 i1 c i1-2 i2 i1 i1 i2-3 a1-35 i1 a2-30 i2 i2-3 n1-9
ISA i2! a10! i2! a10! i2! a15! i2! a15! d6! t4! a1! i5! n9! i1! i1! a1!
K3 a1-80! i1-2 c
LE a1-4!
LIN a1-20 i2! a1-48! i2 a1-48
LQ i1-3! a1-30
LS a1-4!
LX n1-6!
MEA i2 i1-3 r1-20 c r1-20 r1-20 i2 i2 i2 i2-4 i1-3 a1-30
MIA r1-15! r1-18 r1-15 r1-18 a1-50 r1-18*9 r1-15 r1-18*4 a1-50*4 r1-18
MOA r1-10 r1-18 a1-50*5 r1-18 r1-18
MPI i1! i2! i1! a1-80 i1-2 i2-3 a1-35
MSG a1-264! i2 n1-9
N1 i2-3! a1-60 i1-2 a2-80 i2 i2-3
N3 a1-55! a1-55
N4 a2-30 i2 i3-15 i2-3 i1-2 a1-30 i1-3
NM1 i2-3! i1! a1-60 a1-35 a1-25 a1-10 a1-10 i1-2 a2-80 i2 i2-3 a1-60
NTE i3 a1-80!
OI i1-2 i2 i1*4
PAT i2 i1 i2 i1 i2-3 a1-35 i2 r1-10 i1
PER i2! a1-60 i2 a1-256 i2 a1-256 i2 a1-256 a1-20
PLB a1-50! d8! c! r1-18! c r1-18 c r1-18 c r1-18 c r1-18 c r1-18
PRV i1-3! i2-3 a1-50 i2 c i3
PS1 a1-50! r1-18! i2
PWK i2! i1-2 n1-2 i2-3 i1-2 a2-80 a1-80 c i1-2
QTY i2! r1-15 c a1-30
RDM i1-2! a1-60 a1-256 c c
REF i2-3! a1-50 a1-80 c
SBR i1! i2 a1-50 a1-60 i1-3 i1 i1 i2 i1-2
SE n1-10! a4-9!
ST i3! a4-9! a1-35
STC c! d8 i1-2 r1-18 r1-18 d8 i3 d8 a1-16 c c a1-264
SV1 c! r1-18 i2 r1-15 a1-2 i1-2 c r1-18 i1 i1-2 i1 i1 i1-2 a1-2 i1 i1 a1-50 i3-15 r1-18 i1 i1
SV5 c! i2! r1-15! r1-18 r1-18 i1 i1
SVC c! r1-18! r1-18 a1-48 r1-15 c r1-15
SVD a2-80! r1-18! c a1-48 r1-15 n1-6
TA1 n9! d6! t4! i1! i3!
TRN i1-2! a1-50! a10 a1-50
TS2 r1-18*6 r1-15 r1-18 r1-18 r1-15*5 r1-18 r1-15 r1-18 r1-18 r1-18
TS3 a1-50! a1-2! d8! r1-15! r1-18! r1-18*17 r1-15 r1-18
"""

ELEMENTS = parse_elements(ROWS)
