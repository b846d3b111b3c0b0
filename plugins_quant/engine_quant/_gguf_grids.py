"""Grids of GGUF's IQ types: the points of a lattice that a code stands for (facts of the format: ggml-common.h)."""

from __future__ import annotations

import base64
import zlib
from array import array
from typing import NamedTuple


class Grid(NamedTuple):
    """Points of ``size`` coordinates out of ``levels``.

    ``packed``: each point is a number whose digits, the first the highest, are the coordinates' places in ``levels``; kept are the
    differences between one number and the next, 16 bits each, deflated, in base 85.
    """

    levels: tuple[int, ...]
    size: int
    packed: str

    def points(self) -> list[list[int]]:
        """All points in the order of their codes."""
        differences = array("h", zlib.decompress(base64.b85decode(self.packed)))
        found, number, base = [], 0, len(self.levels)
        for difference in differences:
            number += difference
            found.append([self.levels[number // base**place % base] for place in range(self.size - 1, -1, -1)])
        return found


GRIDS = {
    "iq2_xxs": Grid(
        (8, 25, 43), 8,
        "c-l=-J!soN7|mJIS&EW43gR#sJe1NQg9t%`hYlS)cqkq+mf#_XkU3Kb!9$18se^}*!Got@LWZD0L-"
        "AlTbr7901!IIMA~;TvPCs@|XSuqHLbvz5@8`XDx3Yqi25AtaShzv9Q>1i4q-Y+)reJdo(oT?K3OW@d#u+jRb~u}Rm?Omn{q#C!Y)i`LI-yQu$QYaZLGt>`mQ"
        "FRVB~^I~H<vq{3r>h3=QA~sYm%T#PZ!Rnh0pl>o)fvC2AJNvfT=f^Khfn=m5*U1WVIpJfQl=yxAto~R?h>r)m#q6*VvHX&kl>zh`BzTUKO1TU8GJ_&ivG8`P"
        "^82nhZsqcB#kd^jiU^s_=heQ`jx>FL{!S)CEJ)i43_*kLR0N$HJ2t^UzOsOZx>2A0$mNziY@xVGM09hGpVJAO7Am1q=5x)TQ4yNbtzlXGp2?Bfp(kNlP*XCp"
        "t*Zg)wFOSH-"
        "<~Z>^j;=qwERCUbt`Kdyg$Wm!}_6hHblcl%bCob=ycxZwBVld5?WNyRQOH%9&dqBr)o?c{!SA`PB3xf0SX%^Sea%ZE8EY2N+neqrRF!XCK;e*je)2d4",
    ),
    "iq2_xs": Grid(
        (8, 25, 43), 8,
        "c-nnZJ!sod5SEah|Kvn@#yo-s52ch~iZLaFhfq3X2&H%`p@iZgn2<Si$WTl$r9+1f9!e+~N-"
        "4pECQ&?u5P~Ve1XDusP(p`biqh0Sk!4x6WLc^X)g%sXmdD+3@9z7)`zVUww3#*uE~)UQ&64U>7U}W4%B0Q0;402?B{k+7@A0Nw?-"
        "FbY!6d<cZC|hIK6ta7*{u*wxqTDCY|HDPG$R*0>#+fd>d}|K3684Itm|lCOJU$45e=EHkmXCrGR}{Hgcdq7EurQV+d4qEqY&&0NhtqAk#VXF!FReI+KeO9JH"
        "wk@pjeeD3_P?M=h*#I4xJc~5xmr{GB0M{G_qVd^rfr&^!7N5(H@zO{fi{D?cY+Z$Zl)ff0u$<l20hdF0Wj0b6D#q`F;EOg@g!>HOe8;cs#YHiAIW@x4!W^8o"
        "{+&bib+HWX@S`+aKt8_ys$m<ehPUTxpYHAp-W{*@N>6S#1io;2%v{cd>qL=7ORD9JbWDHOWC4$5RemL-"
        "6NzoViD)FGn7bY27E&fu4jEQ$i_ra~Nk1wJI}%*86X#*}%JB1n-"
        "%TtP!Flzevwp%a^C@N~AEDYt^Ion}9_$X5BliX@|aqlH}K#lN^w7dFFM3!Aah|b3qBcS7dtMRpLaEkarLGYj$P27+&ba-CNiCE0LNEcPobgPhLOa=A7M@gpz"
        "zo4O8CidUUD%!LlMz_2G<YXiAnl`U5H~1vfebKhck<V)#M-=kToe%JmprGS;Y&(~DKVgmmAh3#eHU?HoK<41cFY<0&6&KoykPGe1(`RDw4;N&YWP*#QI",
    ),
    "iq2_s": Grid(
        (8, 25, 43), 8,
        "c-oy+J#5-Q6b4~a5(CD_Iz?8MA*vWUAP*TbL{$eS1`i!j6;+u$pbk}4F?2v37@|%L3=C0*j2Tb{1_qQN>SR?645%|=NK-"
        "0=0|pu69_4y+eYUYnvz&eBdq3a%zV{po0ZuX`18}VgS|y`3!6&(}bKi;JeO9&i0+bn<DU7{0YfGn9Ya%n)rvTAjfRfQRNKXpLs`g!Diab*zk-"
        "gP|^KfTgTappcZ7U9W)5<0&ZvpN{of%o@^C((hKrcp_u~Cp-Wu~YPcvLCjuT_6WdMxT^@Y9ZDi0p+1xcYrHS<*KlFAv>ONxrC25NdyBN!&-"
        "2WXKFcgIGejqi2ft!~B1h^t*v;dIsH9K3!e!CC5%q`!l!YrRnu0vd<%hG4e3rKM(!5!h96<+EM}3h~!9sI1WN@=cj-"
        "}6ERdC3NS?juB$!^xfQn^vH@QnQZbBCWM8RdoipGrj5CSGhdYNRKgopw*K=vh;?~l{rd|-"
        "BTM<s>*!>d3ouyg<B0Z2eUYn2A**2=cQvp@aThY^1KJmf8TJ^Kfh5c*?{J|8zy<G)$RB)d>PSYZrRd1ebYrQFZtQ(}D%F6p)0rh)JSzp)M`eq)Q@erO5&Z+e"
        "8I*IJT6xXXiyVbniX~j`MSN*d4e)Nt~|9roSHx@npdatK97MGgs8BZ3hOmY$;?OT&)b474xh-_hudKak;p9r2xdgp^5It3g*Sd3IwWCxz4V>8M4_$!|%)5a8"
        "Vjm2H~N+a__y|9^W+lvCuRU9b;-uwvG;XK-j#AYw~t|~<=c1x+kxSH&&=U4_>f5aw@d*USBq@RAzC+d+Vjc3yC0<Cx=A&=E$W!_%@QQAf)-"
        "c_UVbG4K@egNG5PrzMhH_%M~22WT8fd",
    ),
    "iq3_xxs": Grid(
        (4, 12, 20, 28, 36, 44, 52, 62), 4,
        "c-"
        "l=+OOAsu3^g>(SP1n@UZ%Sq$;%weOL`sDp)?I)UV>W91_k^1{fNkslY}qJj8~D~dU9borcy9p+T80J%7MnTZg8Uy8Z`qwwrelX=#+r~y0MJ5D8;jtX(1+ON%"
        "OUQxew)fH&2bT&f@mj<L?~s(k#6U;CaB!GwjfHwgex+b}#>!;8l9w8t37<n6JsgfjV3cGRrV6HJiSOxzjuqMHch7wYsr#Up^Tv0iV7uJURYt9Sq1qF{|Sw7r"
        "04iVl~ejyrr;Px_Y#bakmo31ig#QN;F2IjW>CVugaEgtzq<XvSI~JM<pxZ$<&1+Cw_@<xv`BU{8S`(aKSI?ra|7}Nn^;|$vbvoulv@(tWF8|M>v_6G{JM#gD"
        "TaI)P?mAH0s8&",
    ),
    "iq3_s": Grid(
        (1, 3, 5, 7, 9, 11, 13, 15), 4,
        "c-l=<QEuxn4AU|raEqX4(x;E5&-7OQ%yAxqEX_RE8!4v`MbX5zWRap65gG6sCFts_fYpX~)T#x$(f5ICZP<<JU(eISvv!<CWJGON@GPnD-"
        "0LA5@#z2hs)VdDHSBrLn!o_of%TPj(x$y4Pb;6+67UQetk0X+H6R66uxbM`Dw)4>$mG7i@eJPAdiH=jSnWDESK@D8xjAO@_>@)+r!Mhi!aE^V?`vhQOdc&ZX"
        "icH3WL+uOWI5hyw)6z^k@5KTQdFZJynSi!Ed9NEFYBq1@1YP?4T%$}t~~TdhmNuMe5_CFrW^Q2?8dZvkB1KbQL9e#CX=xXGCVRokT7u_h@oJah<ddxgW=5En"
        "2wHG?nCF}3U+3tYY2U6>L;x$VL}d65{N#ZMO>TGdm|&NYt<cb1xlkD5@#wGh=;qVG>5#$-&5W3@^#K6(qTYrCh*ABo!TpTblII9>*B39<kmF02IrI#CSk-"
        "`^N{F_O+FW~As<llYC9tJF78&aJn^tjNADbHgM1|F#+s9rh3Ko^tRTuv_}z#f(?eqhqvh$H)cf=0*<5CHAUFA0icu@}O-"
        "<;nHecZJHlt1kuQ|#ieMq=}yPN0_c#TLibim}GTYR`HCTe5DB3Y1Gm(suLEa}rE{$@Dx544I`<p",
    ),
    "iq1_s": Grid(
        (-1, 0, 1), 8,
        "c-"
        "oCuKWH0g6qhb1`NSC;VYuPIg=FzykiEr2JqR=e3hLApN=cUs2oflG=w!TQx`IF*N}*#69XhFCu&08DW(au6azj9wOfD$;b2<BZ7ai5lzrKEVCz)okrT2Z``}"
        "2G6{oYflWYyboJGSa4Q%~!LR{hrxR(&O~Q^-2eN<c|Bl(Xk=U4y6X*fqLgFLBIv{PIpacFdD0<mZ!3UEc3Zi|?VkU+IR9*%(s-"
        "%bs@f@6Ga<FMCP9VyBL&4_)KgM|?huVbL`@5pOicj_H`&zH3n4j-i9mG{!;6(-@bW-"
        "U}S__rKe*o$^*QaSiz1OW>_zmdDF{b<AZb>`eKl8@fg>=|ryKX_UYM^xNreu{RS>gGPF)P9I&uOVJ4pf-JOCZ#VR`vzQhnT4Ikp01MYRp9mU`IS6;xp{X73>"
        "5|dW2H)VjKD6qCP_lIp!y@d%W^=A_CGa$8%;Lzmu!qbE`aJivrzNR`#hg$E{o<p%!)Me3<hYy7s%vcf(4q1#9y#Wruinrbd}}7S$=kg-"
        "+W6jy9P`Hr*#x%457CM(NLUF+wR<<&VSJl9^)nCR4=QgEqJo$KX!>b(Tzx&V>R%1>*^wG^Oiz1snXL)plCO&5sZ^Ss!V~<@R`p<h6Zu4UY|R$C7`E-"
        "SmlV$~C!L5@Ita5_wd#=2B0PFpvQv16UQ@NmyH{1oKmB2jU}0+po9J2Ox?e$D`tXJI!{xG$0OAt)XYcsm2$3^HdsU@f;hbK=h@n|JOkSyo7d!T^346I!mPqO"
        "IgZGHkF~MuJz$m4{U@^}ls9>pQb`ZUBjW^fQNxkH#2LJV;V?LRqa8x^(>-Dstl-I^yqc+%L)eyBe*W`n2FQM+FkMLcpTva_Jt@2{c(&vXGa4oIU3-"
        "Yk=A@52xw91}F24-A;ey~$Wy5Xk2H6uE>sd|Ssbrz#8JZ;-"
        "&eellVP1nF@#Za6go(5C|chR_~KX^}l#Mv?9;HdUZoaG^+gBVnO;tX$oTjhV@dEpPi6J8(&<~on6_{hI11FbT3X7llI#IB?-"
        "u$s*od_n~v5}=_EznBqEl{Zc*<pCHbn^}0EP-~3)m25pS@9-mwY<3dlSvDWtVzfou^b5Y{PgK3ZGEvO4Z&CMYBn(Ym%TV?-"
        "V60@QH)@3BGBewN?f%+IknJZ%L_b)g!oth?2`u#~S%=@8B64b{#(WYVS21%@L1YQ$k~f598sq&n@gIJ!mK5`Xk<@gB^fdZ<wG+vNC+`6h=!XaFC&~`}(MI#X"
        "J>gY^zjr671Ww3ia#17aJx-VpY+1M^9iL}4PFc(YZexOl@WffHrffTogCYk>CF0Yj&iu=MAP8I=m<?cXXlK`EvxjL6*=fWH40dHsJ<Y0n+T(;-"
        "BfFkV`xWrc)@*luXG$c5g;3|rg<=Kv>uGd88Ete!_MoQ$x%0_=jT-3@I1jV`^$2$D^z*mHNh2J(eA;ko^R$;xGr11YkPVPgep<FG-"
        "kos%E$aT#=azX~MQ<=S@qD*^74<9RMA&Bh#TlTuF1w@bu46Y=zH-9>dcXsFiJk7R>BED#=u2ZPdoLzKW4wriOrGrCCEFEt2xRiMT^aYke^)%YxS8baLjL-Ys"
        "p}f@ic=`R=Sh#D>SV_ih8~2-vTW1bWF)RZn8ym4Lk~BTU#?{`L4N4Ju<|@a{nRZJxnIG&DDJrEY~cNAQwV$nU0H@__j1Ow6VS!jl!TdNwj-"
        "{K8g@xYp@EEa5HlCRlv@od2%YdGmA%TyVWD>CLw}J`WLrc`{LRJwGQyw~lmu1sc&jWE@xFgsC4k))>x;ZhZ=Zc6lH$iz75DJ{yE1NX`}=Dz@BH7U_(#Y-"
        "Kt&gSS@aU!$k#%CBY;+wL(YIbU9#b6gByQ@4V#HoZ<SF$!k$+B+XB;o2X2cUziALJ>XEw@XTWIVXMdTN#a{XcFpjC-",
    ),
}
