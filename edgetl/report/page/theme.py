"""The page's style sheet: light and dark by the reader's setting, for screens of any width and for paper."""

# ruff: noqa: E501
from __future__ import annotations

_LIGHT = """
--page:#f4f5f7;--card:#fff;--ink:#14181f;--soft:#565f6c;--faint:#636b77;--rule:#e3e6ea;--grid:#eceef1;--axis:#aab1bb;
--band:#eef2f8;--band2:#f7f9fc;--s0:#2a78d6;--s1:#168a61;--s2:#7a4fc4;--s3:#b3720a;--s4:#c2417c;--s5:#0d8296;--teacher:#545c68;
--good:#127a48;--good-bg:#e2f4ea;--bad:#b3261e;--bad-bg:#fce8e6;--warn:#8a5a00;--warn-bg:#fff3d9;
--hit:#2a78d6;--miss:#d4541c;--accent:#1c64b8;--shade:0 1px 2px rgba(20,24,31,.05),0 4px 16px rgba(20,24,31,.05);
color-scheme:light"""

_DARK = """
--page:#0f1216;--card:#181c22;--ink:#e9ecf0;--soft:#a6aeb9;--faint:#959eab;--rule:#2a3038;--grid:#252b33;--axis:#535c68;
--band:#1d2631;--band2:#1a2028;--s0:#5b9fee;--s1:#3fbd8c;--s2:#a98bea;--s3:#dfa03f;--s4:#e87fb0;--s5:#45bcd0;--teacher:#a8b0bc;
--good:#5fd39a;--good-bg:#143024;--bad:#ff8f86;--bad-bg:#3a1d1b;--warn:#f0c060;--warn-bg:#35290f;
--hit:#3d86de;--miss:#e0622b;--accent:#6aa9f0;--shade:none;color-scheme:dark"""

_PAGE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,sans-serif}
main,header,footer{max-width:1136px;margin:0 auto;padding:0 24px}
header{padding-top:32px}
h1{font-size:28px;line-height:1.2;margin:0;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{font-size:18px;line-height:1.3;margin:0 0 4px;letter-spacing:-.01em}
h3{font-size:14px;margin:20px 0 8px;color:var(--ink)}
p{margin:0 0 12px}
a{color:var(--accent)}
.kicker{color:var(--soft);font-size:13px;margin:0 0 4px}
.title{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center}
.pill{display:inline-block;border-radius:99px;padding:3px 11px;font-size:13px;font-weight:600;white-space:nowrap}
.pill.good{color:var(--good);background:var(--good-bg)}
.pill.bad{color:var(--bad);background:var(--bad-bg)}
.about{color:var(--soft);margin:10px 0 0;max-width:96ch}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:16px 0 0;font-size:13.5px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
section{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:22px 24px 24px;margin:16px 0;box-shadow:var(--shade)}
.lead{color:var(--soft);max-width:108ch;font-size:14px}
.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:16px;margin:20px 0 16px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:16px 18px;box-shadow:var(--shade);min-width:0}
.card p{font-size:13px;color:var(--soft);margin:6px 0 0}
.card h2{font-size:13px;font-weight:500;color:var(--soft);letter-spacing:0;margin:0}
.card .value{color:var(--ink);font-size:27px;font-weight:650;letter-spacing:-.025em;line-height:1.25;margin:4px 0 8px;overflow-wrap:anywhere}
.card .value small{font-size:15px;font-weight:500;color:var(--soft);letter-spacing:0}
.card .doubt{margin:0 0 8px;color:var(--ink)}
.pair{display:grid;grid-template-columns:max-content 1fr max-content;gap:3px 9px;align-items:center;font-size:12.5px;color:var(--soft);font-variant-numeric:tabular-nums}
.pair b{font-weight:600;color:var(--ink)}
.verdict{border:1px solid var(--rule);border-left:5px solid var(--good);background:var(--card);border-radius:12px;padding:14px 20px;margin:0 0 16px;box-shadow:var(--shade)}
.verdict.bad{border-left-color:var(--bad)}
.verdict p{margin:0;overflow-wrap:anywhere}
.warnings{background:var(--warn-bg);border-radius:12px;padding:14px 20px;margin:0 0 16px}
.warnings h2{font-size:14px;color:var(--warn)}
.warnings ul{margin:6px 0 0;padding-left:20px;font-size:14px}
.columns{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:8px 20px;align-items:start}
.columns h3:first-child{margin-top:8px}
.meter{display:inline-block;width:100%;min-width:44px;height:7px;border-radius:4px;background:var(--grid);overflow:hidden;vertical-align:middle}
.meter>span{display:block;height:100%;border-radius:4px;background:var(--s0);min-width:2px}
.meter.old>span{background:var(--teacher)}
.meter.low>span{background:var(--miss)}
"""

_TABLES = """
.scroll{overflow-x:auto;margin:8px 0 0;-webkit-overflow-scrolling:touch}
.scroll:focus-visible,summary:focus-visible,button:focus-visible,input:focus-visible,a:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:4px}
table{border-collapse:collapse;width:100%;font-size:13.5px}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:7px 8px;text-align:left;border-bottom:1px solid var(--rule);vertical-align:baseline}
thead th{font-size:12px;font-weight:500;color:var(--soft);white-space:nowrap;vertical-align:bottom}
tbody th{font-weight:500;overflow-wrap:anywhere;min-width:7em}
thead td{padding:0 8px}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;text-align:inherit;white-space:inherit}
th button:hover{color:var(--ink);text-decoration:underline}
th[aria-sort] button{color:var(--ink);font-weight:600}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tbody th.n{min-width:0;color:var(--faint)}
tbody tr:last-child>*{border-bottom:0}
tr.total>*{font-weight:600;border-top:1px solid var(--axis)}
tr.default>*{background:var(--band)}
td .range{display:block;font-size:11px;color:var(--faint)}
.tag{display:inline-block;border-radius:6px;padding:0 7px;font-size:12px;font-weight:600;margin:1px 4px 1px 0}
.tag.good{color:var(--good);background:var(--good-bg)}
.tag.warn{color:var(--warn);background:var(--warn-bg)}
.tag.bad{color:var(--bad);background:var(--bad-bg)}
.named{white-space:nowrap}
.swatch{display:inline-block;width:10px;height:10px;border-radius:50%;background:var(--c);margin-right:8px}
.swatch.st{border-radius:2px;transform:rotate(45deg) scale(.9)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,210px),1fr));gap:12px 24px;margin:12px 0 0}
dl div{min-width:0}
dl .long{grid-column:1/-1}
dt{font-size:12px;color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere;font-size:14px}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12.5px}
pre{background:var(--page);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;overflow-x:auto;margin:10px 0 0;line-height:1.55}
details{margin:12px 0 0}
summary{cursor:pointer;font-size:14px;color:var(--accent);padding:4px 0}
footer{color:var(--faint);font-size:12.5px;padding-bottom:36px}
"""

_FLIPS = """
.flips{list-style:none;display:grid;grid-template-columns:repeat(auto-fill,minmax(128px,1fr));gap:14px;margin:10px 0 0;padding:0}
.flips li{font-size:12.5px;min-width:0;break-inside:avoid}
.flips img,.flips .none{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:var(--grid);border-radius:8px;border:1px solid var(--rule)}
.flips .none{display:grid;place-items:center;color:var(--faint)}
.flips .path{display:block;color:var(--faint);font-size:11px;overflow-wrap:anywhere}
.flips .right{color:var(--good);font-weight:600}
.flips .wrong{color:var(--bad);font-weight:600}
.pair-of-pictures{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.flips.pictures{grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}
.boxed{display:block;width:100%;height:auto;max-height:420px;border-radius:8px;background:var(--grid)}
.boxed .paper{fill:var(--grid)}
.boxed .box{fill:transparent;stroke:var(--c);stroke-width:2;vector-effect:non-scaling-stroke}
.k-true{--c:#fff}.k-right{--c:#2fd07f}.k-missed{--c:#ffd21f}.k-wrong{--c:#ff4b3e}.k-gone{--c:#9fb3c8}
.boxed .k-missed,.boxed .k-gone{stroke-dasharray:5 3}
.key.k-true{outline:1px solid var(--axis)}
.says{padding-left:20px;margin:12px 0 0;font-size:14px}
.says li{margin:0 0 6px}
.now{list-style:none;padding:0;margin:10px 0 0;display:grid;gap:12px}
.now progress{display:block;width:100%;height:9px;accent-color:var(--s0);margin:4px 0 0}
.now .far{color:var(--soft);font-variant-numeric:tabular-nums}
.says.log{list-style:none;padding:0;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12.5px;overflow-wrap:anywhere}
.pill.run{color:var(--accent);background:var(--band)}
main>.verdict:first-child{margin-top:20px}
.verdict.warn{border-left-color:var(--warn)}
.pill.warn{color:var(--warn);background:var(--warn-bg)}
"""

_CHARTS = """
figure{margin:10px 0 0}
figcaption{font-size:12.5px;color:var(--soft);margin-top:6px;max-width:108ch}
figure svg{overflow:visible;display:block;width:100%;height:auto}
.narrow{display:none}
svg text{font-family:inherit;font-size:12px;fill:var(--soft)}
svg .tick{font-size:11.5px;font-variant-numeric:tabular-nums}
svg .tick.tight{font-size:10px}
svg .title{fill:var(--soft)}
svg .name{fill:var(--ink);font-weight:600;font-size:12.5px}
svg .note{font-size:11.5px}
svg .phase{font-size:11px}
svg .grid{stroke:var(--grid)}
svg .axis{stroke:var(--axis)}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.st{--c:var(--teacher)}
.hit-key{--c:var(--hit)}.miss-key{--c:var(--miss)}
.c-train{--c:var(--teacher)}.c-val{--c:var(--s0)}.c-f1{--c:var(--s1)}.c-cut{--c:var(--miss)}.c-once{--c:var(--s3)}
svg .dot{fill:var(--c);stroke:var(--card);stroke-width:1.5}
svg .dot.small{stroke-width:.6}
svg .hollow{fill:var(--card);stroke:var(--c);stroke-width:2}
svg .ring{fill:none;stroke:var(--c);stroke-width:1.6;stroke-opacity:.55}
svg .bar{stroke:var(--c);stroke-width:1.4;stroke-opacity:.75}
svg .curve{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg .thin{fill:none;stroke:var(--c);stroke-width:1.3;stroke-dasharray:3 3}
svg .chance{stroke:var(--faint);stroke-dasharray:2 4}
svg .floor{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:6 4}
svg .floor-text{fill:var(--bad);font-size:11.5px}
svg .under-floor{fill:var(--bad);fill-opacity:.05}
svg .bracket{stroke:var(--axis)}
svg .gain{fill:var(--ink);font-weight:650;font-size:13px}
svg .band.b0{fill:var(--band)}
svg .band.b1{fill:var(--band2)}
svg .matrix{fill:var(--grid);fill-opacity:.5}
svg .hit{fill:var(--hit)}
svg .miss{fill:var(--miss)}
svg .fill{fill:var(--c)}
svg .shipped{fill:var(--band);stroke:var(--axis);stroke-dasharray:3 3}
svg .cell{font-size:11px;fill:var(--ink);pointer-events:none}
svg .cell.on{fill:#fff;font-weight:600}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0;padding:0;font-size:12.5px;color:var(--soft)}
.legend li{display:flex;align-items:center;gap:7px}
.key{display:inline-block;width:10px;height:10px;border-radius:50%;background:var(--c)}
.key.line{width:18px;height:3px;border-radius:2px}
.key.dash{width:18px;height:0;border-radius:0;background:none;border-top:2px dashed var(--c)}
.key.hollow{background:none;border:2px solid var(--c)}
.key.diamond{border-radius:1px;transform:rotate(45deg) scale(.9)}
.key.cell{border-radius:2px}
"""

_SMALL = """
@media screen and (max-width:1000px){.cards{grid-template-columns:repeat(2,1fr)}}
@media screen and (max-width:900px){.columns{grid-template-columns:minmax(0,1fr)}}
@media screen and (max-width:760px){
.wide{display:none}.narrow{display:block}
main,header,footer{padding-left:12px;padding-right:12px}
header{padding-top:20px}
section{padding:16px 14px 18px;border-radius:10px;margin:12px 0}
.cards{gap:12px;margin:16px 0 12px}
h1{font-size:23px}
.wide-only{display:none}
th,td{padding:7px 6px}
dl{grid-template-columns:repeat(auto-fill,minmax(140px,1fr))}
.scroll tbody th:first-child,.scroll thead th:first-child{position:sticky;left:0;background:var(--card);z-index:1}
.scroll tr.default>*:first-child{background:var(--band)}
}
@media screen and (max-width:520px){.cards{grid-template-columns:minmax(0,1fr)}}
"""

_PRINT = """
@page{margin:12mm}
@media print{
body{font-size:12px;background:#fff}
main,header,footer{max-width:none;padding:0}
section,.card,.verdict{box-shadow:none}
.cards{grid-template-columns:repeat(2,1fr);gap:10px}
.columns{grid-template-columns:minmax(0,1fr)}
.columns figure{max-width:460px!important}
th,td{padding:3px 4px}
table{font-size:10px}
thead th{font-size:10px}
thead th,.named,.tag{white-space:normal}
tbody th{min-width:5em}
.wide-only{display:none}
.flips:not(.pictures){grid-template-columns:repeat(6,1fr)}
section{border:0;border-top:1px solid var(--rule);border-radius:0;padding:14px 0}
figure,tr,.card,.verdict{break-inside:avoid}
h2,h3,.lead,.legend{break-after:avoid}
nav{display:none}
.scroll{overflow:visible}
pre{white-space:pre-wrap}
details::details-content{content-visibility:visible;display:block;block-size:auto}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""

STYLE = (
    f":root{{{_LIGHT}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}\n"
    + _PAGE
    + _TABLES
    + _FLIPS
    + _CHARTS
    + _SMALL
    + _PRINT
)
