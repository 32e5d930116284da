"""The page's style: light and dark by the reader's wish, for screens of any width and for paper."""

from typing import Final

__all__ = ["CSS"]

CSS: Final = """
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --ink: #1a1f26; --soft: #57616d; --line: #dfe3e8;
  --ground: #fdf3f3; --sent: #2f6fde; --odd: #5b8fe8; --inside: #ffffff; --speed: #0d7a70;
  --dirty: #b8500f; --predicted: #7443c4; --real: #c02648; --idle: #e3e7ec; --still: #1a1f26;
  --good: #1a7340; --good-back: #e3f4e8; --warn: #805300; --warn-back: #fdf1d3;
  --bad: #a81a3a; --bad-back: #fde6ea;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #0e1217; --card: #171c23; --ink: #e8ecf1; --soft: #a0abb8; --line: #2b343e;
    --ground: #241a20; --sent: #5b95f5; --odd: #86b2fa; --inside: #0c1118; --speed: #45c4b5;
    --dirty: #f39a58; --predicted: #b695f5; --real: #ff7690; --idle: #2a323c; --still: #f4f6f9;
    --good: #6fd494; --good-back: #14301f; --warn: #f0c15c; --warn-back: #35290c;
    --bad: #ff8fa3; --bad-back: #3a1720;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main, header, footer { max-width: 54rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .35rem; }
p { margin: 0 0 .75rem; }
.soft, footer { color: var(--soft); }
footer { padding-top: .5rem; padding-bottom: 2.5rem; font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.15rem 1.25rem; margin: 1rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 1rem; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .85rem 1.1rem; }
.figures dt { color: var(--soft); font-size: .875rem; }
.figures dd { margin: 0; font-size: 1.7rem; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.figures dd + dd { font-size: .875rem; line-height: 1.4; font-weight: 400; color: var(--soft);
  letter-spacing: 0; }
.figures .good { color: var(--good); } .figures .over { color: var(--bad); }
.figures dd + dd.good { color: var(--good); } .figures dd + dd.over { color: var(--bad); }
.note { border-left: 4px solid var(--warn); background: var(--warn-back); border-radius: 6px;
  padding: .6rem .9rem; margin: .75rem 0; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; overflow: visible; margin: .75rem auto .25rem; }
.narrow { display: none; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .875rem; color: var(--soft);
  margin: 0; padding: 0; list-style: none; }
.key svg { display: inline-block; width: 14px; height: 14px; margin: 0 .4rem 0 0;
  vertical-align: -2px; }
text { font-size: 12px; fill: var(--ink); font-variant-numeric: tabular-nums; }
text.soft { fill: var(--soft); } text.name { font-weight: 600; font-size: 13px; }
text.value { font-size: 11.5px; } text.inside { fill: var(--inside); font-weight: 600; }
.grid { stroke: var(--line); } .tick { stroke: var(--soft); }
.zoom, .ground { fill: var(--ground); }
.allowed { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
rect.sent { fill: var(--sent); } rect.odd { fill: var(--odd); } rect.idle { fill: var(--idle); }
rect.final, rect.real, circle.real { fill: var(--real); } rect.still { fill: var(--still); }
line.real { stroke: var(--real); stroke-width: 1.5; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.speed { stroke: var(--speed); } .speed { fill: var(--speed); }
polyline.dirty { stroke: var(--dirty); stroke-dasharray: 6 3; } .dirty { fill: var(--dirty); }
polyline.predicted { stroke: var(--predicted); stroke-dasharray: 2 3; }
.predicted { fill: var(--predicted); }
polyline.speed, polyline.dirty, polyline.predicted { fill: none; }
.scroll { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding-bottom: .35rem; }
th, td { text-align: right; padding: .32rem .6rem; border-top: 1px solid var(--line);
  white-space: nowrap; }
thead td { border-top: 0; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; vertical-align: bottom;
  white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { font-weight: 500; } tfoot th, tfoot td { font-weight: 650; }
.findings { list-style: none; margin: .5rem 0 0; padding: 0; }
.findings li { display: grid; grid-template-columns: 5.4rem minmax(0, 1fr); gap: 0 .75rem;
  padding: .45rem 0; border-top: 1px solid var(--line); align-items: baseline; }
.findings p { margin: 0; overflow-wrap: anywhere; } .findings .remedy { color: var(--soft); }
.findings .about { font-weight: 600; } .findings .about span { font-weight: 400;
  color: var(--soft); }
.badge { justify-self: start; font-size: .8rem; font-weight: 600; border-radius: 99px;
  padding: .05rem .6rem; }
.badge.ok { color: var(--good); background: var(--good-back); }
.badge.warning { color: var(--warn); background: var(--warn-back); }
.badge.no { color: var(--bad); background: var(--bad-back); }
ul.because { margin: .75rem 0 0; padding-left: 1.2rem; color: var(--soft); font-size: .9rem;
  overflow-wrap: anywhere; }
@media screen and (max-width: 44rem) {
  .wide { display: none; } .narrow { display: block; }
  section { padding: 1rem .85rem; } main, header, footer { padding-left: .75rem;
  padding-right: .75rem; }
  .figures { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .figures div { padding: .7rem .8rem; } .figures dd { font-size: 1.35rem; }
  h1 { font-size: 1.4rem; } table { font-size: .8125rem; } th, td { padding: .32rem .4rem; }
}
@media print {
  body { background: #fff; font-size: 12px; } section, .figures div { break-inside: avoid; }
  header { padding-top: 0; } .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
