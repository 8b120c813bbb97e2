# SPDX-License-Identifier: Apache-2.0
"""Style sheet of the report: light and dark, printable, no outside fonts."""

CSS = """
:root{--bg:#f6f7f9;--fg:#1c2330;--soft:#5c6675;--line:#dfe3e9;--card:#fff;--accent:#1f6feb;
--before:#b6bfcc;--after:#1f6feb;--good:#1a7f4b;--warn:#9a6700;--bad:#c0362c}
@media (prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e4e9f0;--soft:#98a3b3;--line:#2b3340;
--card:#1a202a;--accent:#6ea8ff;--before:#4a5567;--after:#6ea8ff;--good:#4cc38a;--warn:#e0b341;
--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}
header{margin-bottom:24px}.kicker{margin:0;color:var(--soft);font-size:13px;letter-spacing:.08em;
text-transform:uppercase}h1{margin:.1em 0 .2em;font-size:30px}.lead{margin:0;font-size:17px}
h2{margin:0 0 12px;font-size:20px}h3{margin:0 0 4px;font-size:13px;color:var(--soft)}
section{margin:0 0 20px;padding:20px 22px;background:var(--card);border:1px solid var(--line);
border-radius:10px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:14px;padding:0;
background:none;border:0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 18px}
.card p{margin:0}.card .value{font-size:28px;font-weight:650;font-variant-numeric:tabular-nums}
.label{color:var(--accent);font-size:12.5px}.under{color:var(--soft);font-size:13px}
.note{border-color:var(--warn)}.note p{margin:0;color:var(--warn)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th{color:var(--soft);font-weight:600;font-size:12.5px;text-align:left}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:middle}
th.n,td.n{text-align:right}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
small{color:var(--soft)}code{font-size:12.5px;overflow-wrap:anywhere}
.chip{display:inline-block;padding:0 8px;border-radius:9px;color:#fff;font-size:12.5px;
font-weight:600;background:#6b7280}
.b2{background:#a3195b}.b3{background:#b3401f}.b4{background:#b45309}.b5{background:#7c6f00}
.b6{background:#4d7c0f}.b7{background:#0f766e}.b8{background:#1d4ed8}
.bars{position:relative;min-width:150px}.bars i{display:block;height:7px;border-radius:2px;
min-width:1px}.bars span{font-size:12px;color:var(--soft);font-variant-numeric:tabular-nums}
.before{background:var(--before)}.after{background:var(--after);margin-top:2px}
.legend{margin:0 0 8px;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:22px;height:8px;border-radius:2px;margin:0 4px 0 10px}
.state{font-weight:650}.exact{color:var(--good)}.within{color:var(--warn)}.failed{color:var(--bad)}
.skipped{color:var(--soft);font-weight:400}
.drawing{overflow:auto;max-height:900px;background:#fff;border:1px solid var(--line);
border-radius:8px;padding:10px}.drawing svg{display:block;margin:0 auto}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""
