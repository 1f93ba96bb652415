"""How the page looks: on a laptop, on a phone, on paper, by day and by night."""

CSS = """
:root { --ink: #1d2430; --soft: #5a6472; --line: #dde1e6; --back: #f6f7f9; --card: #fff; --link: #00609b;
  --good: #00775a; --bad: #b34700; --tint: #eef3f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #343b46; --back: #14181e;
  --card: #1c222a; --link: #6cb8ef; --good: #4cc9a4; --bad: #f0955a; --tint: #232b35; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.3rem; }
h3 { margin: 0 0 .25rem; font-size: 1.02rem; }
a { color: var(--link); }
.state { display: inline-block; margin: .6rem .5rem 0 0; padding: .1rem .65rem; border-radius: 1rem; font-weight: 600;
  background: var(--tint); }
.state.good { color: #fff; background: #00775a; }
.state.bad { color: #fff; background: #b34700; }
.why { display: inline; color: var(--soft); overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.1rem 0 0; padding: 0; }
.facts div { flex: 1 1 11rem; padding: .55rem .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; font-size: .95rem; }
.written { margin: .9rem 0 0; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
nav { margin: 1.2rem 0 0; padding: .7rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; font-size: .9rem; }
nav p { margin: .15rem 0; padding-left: 8rem; text-indent: -8rem; }
nav b { display: inline-block; width: 8rem; text-indent: 0; } nav a { text-indent: 0; }
nav a { margin-right: .8rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
nav a.lacks { color: var(--soft); }
section.item { margin: 1rem 0; padding: 1rem 1.1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; break-inside: avoid; }
.says { margin: 0 0 .6rem; color: var(--soft); font-size: .88rem; max-width: 54rem; }
.says a { white-space: nowrap; }
.lacks { color: var(--soft); }
p.lacks { margin: 0; font-size: .9rem; }
.plot { background: #fff; border-radius: .4rem; padding: .4rem; overflow-x: auto;
  content-visibility: auto; contain-intrinsic-size: auto 26rem; }
.plot svg { display: block; width: 100%; max-width: 52rem; height: auto; margin: 0 auto; }
.plot svg * { stroke-linejoin: round; stroke-linecap: butt; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .3rem .35rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } th.n, td.n { text-align: right; }
th { white-space: normal; vertical-align: bottom; }
td { white-space: nowrap; } td.long { min-width: 12rem; white-space: normal; overflow-wrap: anywhere; }
pre { margin: .5rem 0 0; padding: .8rem; background: var(--tint); border-radius: .4rem; overflow-x: auto;
  font-size: .8rem; line-height: 1.4; }
summary { cursor: pointer; font-weight: 600; }
footer { max-width: 68rem; margin: 2.5rem auto 0; padding: 1rem 1.25rem 2rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { body { font-size: 15px; } main, header { padding: 0 .7rem; } header { padding-top: 1rem; }
  section.item { padding: .8rem .7rem; } .plot { padding: .2rem; } .plot svg { width: 34rem; max-width: none; }
  nav p { padding: 0; text-indent: 0; } nav b { display: block; } nav a { display: inline-block; padding: .15rem 0; } }
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --back: #fff; --card: #fff; --link: #000;
  --tint: #f4f4f4; }
  body { font-size: 10.5pt; } main, header, footer { max-width: none; padding: 0; } nav, .files { display: none; }
  section.item { border: 0; padding: 0; margin: .8rem 0; } h2 { break-after: avoid; } h3, .says { break-after: avoid; }
  .plot { overflow: visible; padding: 0; content-visibility: visible; }
  .plot svg { width: 13cm; } .wide { overflow: visible; }
  table { font-size: 8pt; } th, td { padding: .15rem .3rem; } th.n, td.n { white-space: normal; }
  td.long { min-width: 0; } pre { white-space: pre-wrap; } .state { border: 1px solid #000; } }
"""
