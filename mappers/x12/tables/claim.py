"""837 professional claim, 005010X222A1: loops and segments (columns: `mappers/x12/table.py`)."""

from __future__ import annotations

from mappers.x12.table import parse_table

ROWS = """
50 ST R 1 need=3
100 BHT R 1 match=1:0019
loop 1000A in ST at 200 R 1: submitter
  200 NM1 R 1 match=1:41 need=3,8,9
  450 PER R 2 match=1:IC need=3,4
loop 1000B in ST at 210 R 1: receiver
  200 NM1 R 1 match=1:40 need=3,8,9
loop 2000A in ST at 1000 R *: billing provider level
  10 HL R 1 match=3:20 need=4
  30 PRV S 1 match=1:BI need=2,3
  100 CUR S 1 match=1:85
loop 2010AA in 2000A at 150 R 1: billing provider
  150 NM1 R 1 match=1:85 need=3
  250 N3 R 1
  300 N4 R 1 need=1
  350 REF R 1 match=1:EI,SY need=2
  350 REF S 2 match=1:0B,1G need=2
  400 PER S 2 match=1:IC need=3,4
loop 2010AB in 2000A at 150 S 1: pay-to address
  150 NM1 R 1 match=1:87
  250 N3 R 1
  300 N4 R 1 need=1
loop 2010AC in 2000A at 150 S 1: pay-to plan
  150 NM1 R 1 match=1:PE need=3,8,9
  250 N3 R 1
  300 N4 R 1 need=1
  350 REF S 1 match=1:2U,FY,NF need=2
  350 REF R 1 match=1:EI need=2
loop 2000B in 2000A at 2000 R *: subscriber level
  10 HL R 1 match=3:22 need=2,4
  50 SBR R 1
  70 PAT S 1
loop 2010BA in 2000B at 150 R 1: subscriber
  150 NM1 R 1 match=1:IL need=3
  250 N3 S 1
  300 N4 S 1 need=1
  320 DMG S 1 match=1:D8 need=2,3
  350 REF S 1/q match=1:SY,Y4 need=2
  400 PER S 1 match=1:IC need=3,4
loop 2010BB in 2000B at 150 R 1: payer
  150 NM1 R 1 match=1:PR need=3,8,9
  250 N3 S 1
  300 N4 S 1 need=1
  350 REF S 1/q match=1:2U,EI,FY,NF,G2,LU need=2
loop 2000C in 2000B at 2000 S *: patient level
  10 HL R 1 match=3:23 need=2,4
  70 PAT R 1 need=1
loop 2010CA in 2000C at 150 R 1: patient
  150 NM1 R 1 match=1:QC need=3
  250 N3 R 1
  300 N4 R 1 need=1
  320 DMG R 1 match=1:D8 need=2,3
  350 REF S 1/q match=1:Y4,1W,SY need=2
  400 PER S 1 match=1:IC need=3,4
loop 2300 in 2000B,2000C at 1300 S 100: claim
  1300 CLM R 1 need=2,5,6,7,8,9
  1350 DTP S 1/q match=1:431,454,304,453,439,484,455,471,314,360,361,297,296,435,096,090,091,444,050
  1550 PWK S 10 need=2
  1600 CN1 S 1
  1750 AMT S 1 match=1:F5
  1800 REF S 1/q match=1:4N,F5,EW,9F,G1,F8,X4,9A,9C,LX,D9,EA,P4,1J need=2
  1850 K3 S 10
  1900 NTE S 1 match=1:ADD,CER,DCP,DGN,TPO
  1950 CR1 S 1
  2000 CR2 S 1
  2200 CRC S 8 match=1:07,E1,E2,E3,75,ZZ
  2310 HI R 1 match=1-1:ABK,BK
  2310 HI S 1 match=1-1:BP
  2310 HI S 2 match=1-1:BG
  2410 HCP S 1 need=1,2
loop 2310A in 2300 at 2500 S 2: referring provider
  2500 NM1 R 1 match=1:DN,P3 need=3
  2710 REF S 3 match=1:0B,1G,G2 need=2
loop 2310B in 2300 at 2500 S 1: rendering provider
  2500 NM1 R 1 match=1:82 need=3
  2550 PRV S 1 match=1:PE need=2,3
  2710 REF S 4 match=1:0B,1G,G2,LU need=2
loop 2310C in 2300 at 2500 S 1: facility
  2500 NM1 R 1 match=1:77 need=3
  2650 N3 R 1
  2700 N4 R 1 need=1
  2710 REF S 3 match=1:0B,G2,LU need=2
  2750 PER S 1 match=1:IC need=3,4
loop 2310D in 2300 at 2500 S 1: supervising provider
  2500 NM1 R 1 match=1:DQ need=3
  2710 REF S 4 match=1:0B,1G,G2,LU need=2
loop 2310E in 2300 at 2500 S 1: ambulance pick-up
  2500 NM1 R 1 match=1:PW
  2650 N3 R 1
  2700 N4 R 1 need=1
loop 2310F in 2300 at 2500 S 1: ambulance drop-off
  2500 NM1 R 1 match=1:45
  2650 N3 R 1
  2700 N4 R 1 need=1
loop 2320 in 2300 at 2900 S 10: other subscriber
  2900 SBR R 1 need=2
  2950 CAS S 5 match=1:CO,CR,OA,PI,PR
  3000 AMT S 1/q match=1:D,A8,EAF,F2
  3100 OI R 1 need=3,6
  3200 MOA S 1
loop 2330A in 2320 at 3250 R 1: other subscriber's name
  3250 NM1 R 1 match=1:IL need=3,8,9
  3320 N3 S 1
  3400 N4 S 1 need=1
  3550 REF S 1 match=1:SY need=2
loop 2330B in 2320 at 3250 R 1: other payer
  3250 NM1 R 1 match=1:PR need=3,8,9
  3320 N3 S 1
  3400 N4 S 1 need=1
  3450 DTP S 1 match=1:573
  3550 REF S 1/q match=1:2U,EI,FY,NF,G1,9F,T4,F8 need=2
loop 2330C in 2320 at 3250 S 2: other payer's referring provider
  3250 NM1 R 1 match=1:DN,P3
  3550 REF R 3 match=1:0B,1G,G2 need=2
loop 2330D in 2320 at 3250 S 1: other payer's rendering provider
  3250 NM1 R 1 match=1:82
  3550 REF R 3 match=1:0B,1G,G2,LU need=2
loop 2330E in 2320 at 3250 S 1: other payer's facility
  3250 NM1 R 1 match=1:77
  3550 REF R 3 match=1:0B,G2,LU need=2
loop 2330F in 2320 at 3250 S 1: other payer's supervising provider
  3250 NM1 R 1 match=1:DQ
  3550 REF R 3 match=1:0B,1G,G2,LU need=2
loop 2330G in 2320 at 3250 S 1: other payer's billing provider
  3250 NM1 R 1 match=1:85
  3550 REF R 2 match=1:G2,LU need=2
loop 2400 in 2300 at 3650 R 50: line
  3650 LX R 1
  3700 SV1 R 1 need=2,3,4,7
  4000 SV5 S 1
  4200 PWK S 11 need=2
  4250 CR1 S 1
  4350 CR3 S 1
  4500 CRC S 5 match=1:07,70,09
  4550 DTP R 1 match=1:472
  4550 DTP S 1/q match=1:471,607,463,461,304,738,739,011,455,454
  4600 QTY S 1/q match=1:PT,FL
  4620 MEA S 5
  4650 CN1 S 1
  4700 REF S 1/q match=1:9B,9D,6R,EW,X4,F4,BT need=2
  4700 REF S 5/q match=1:G1,9F need=2
  4750 AMT S 1/q match=1:T,F4
  4800 K3 S 10
  4850 NTE S 1/q match=1:ADD,DCP,TPO
  4880 PS1 S 1
  4920 HCP S 1 need=1,2
loop 2410 in 2400 at 4930 S 1: drug
  4930 LIN R 1
  4940 CTP R 1 need=4,5
  4950 REF S 1 match=1:VY,XZ need=2
loop 2420A in 2400 at 5000 S 1: rendering provider of the line
  5000 NM1 R 1 match=1:82 need=3
  5050 PRV S 1 match=1:PE need=2,3
  5250 REF S 20 match=1:0B,1G,G2,LU need=2
loop 2420B in 2400 at 5000 S 1: purchased service's provider
  5000 NM1 R 1 match=1:QB
  5250 REF S 20 match=1:0B,1G,G2 need=2
loop 2420C in 2400 at 5000 S 1: facility of the line
  5000 NM1 R 1 match=1:77 need=3
  5140 N3 R 1
  5200 N4 R 1 need=1
  5250 REF S 3 match=1:G2,LU need=2
loop 2420D in 2400 at 5000 S 1: supervising provider of the line
  5000 NM1 R 1 match=1:DQ need=3
  5250 REF S 20 match=1:0B,1G,G2,LU need=2
loop 2420E in 2400 at 5000 S 1: ordering provider
  5000 NM1 R 1 match=1:DK need=3
  5140 N3 S 1
  5200 N4 S 1 need=1
  5250 REF S 20 match=1:0B,1G,G2 need=2
  5300 PER S 1 match=1:IC need=3,4
loop 2420F in 2400 at 5000 S 2: referring provider of the line
  5000 NM1 R 1 match=1:DN,P3 need=3
  5250 REF S 20 match=1:0B,1G,G2 need=2
loop 2420G in 2400 at 5000 S 1: ambulance pick-up of the line
  5000 NM1 R 1 match=1:PW
  5140 N3 R 1
  5200 N4 R 1 need=1
loop 2420H in 2400 at 5000 S 1: ambulance drop-off of the line
  5000 NM1 R 1 match=1:45
  5140 N3 R 1
  5200 N4 R 1 need=1
loop 2430 in 2400 at 5400 S 15: another payer's adjudication of the line
  5400 SVD R 1 need=3,5
  5450 CAS S 5 match=1:CO,CR,OA,PI,PR
  5500 DTP R 1 match=1:573
  5505 AMT S 1 match=1:EAF
loop 2440 in 2400 at 5510 S *: form
  5510 LQ R 1 match=1:AS,UT need=2
  5520 FRM R 99
loop SE in ST at 9000 R 1: trailer
  9000 SE R 1
"""

TABLE_837P = parse_table("837", "005010X222A1", "HC", ROWS)
