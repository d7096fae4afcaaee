// The look of the report: light and dark as the reader's system has it, light on paper. Colours are those of Okabe and Ito, which colour-blind
// people tell apart, made lighter on dark ground; dashes and shapes tell the same.

const light = `
  --ground: #fbfaf8; --card: #ffffff; --ink: #1d2126; --soft: #5b636d; --line: #e3e1dc; --strong: #9aa1aa; --accent: #0072b2; --good: #e3f1ea; --real: #b8336a;
  --s1: #0072b2; --s2: #c65102; --s3: #00805f; --s4: #a8488a; --s5: #7a6a00; --s6: #444c56;`
const dark = `
  --ground: #15181c; --card: #1d2126; --ink: #e8e6e1; --soft: #a3abb5; --line: #31373f; --strong: #6b7480; --accent: #6cbcf0; --good: #1e3a30; --real: #ff86ad;
  --s1: #62b6ee; --s2: #ff9a52; --s3: #3fc79a; --s4: #e79ccd; --s5: #d9c74a; --s6: #b9c0c9;`

const looks = [1, 2, 3, 4, 5, 6]
const dashes: Readonly<Record<number, string>> = { 2: '7 3', 3: '2 3', 4: '9 3 2 3', 5: '4 2', 6: '1 3' }

export const style: string = `
:root { color-scheme: light dark; ${light} }
@media (prefers-color-scheme: dark) { :root { ${dark} } }
@media print { :root { color-scheme: light; ${light} --ground: #ffffff; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1240px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 44px; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.02em; font-weight: 680; }
h2 { font-size: 1.45rem; margin: 56px 0 12px; letter-spacing: -0.01em; font-weight: 650; }
h3 { font-size: 1.1rem; margin: 0 0 4px; font-weight: 640; }
h4 { font-size: 0.92rem; margin: 18px 0 2px; font-weight: 620; }
p { margin: 6px 0; max-width: 78ch; }
.soft, figcaption { color: var(--soft); font-size: 0.92rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 20px 0 0; font-size: 0.95rem; }
nav a { text-decoration: none; padding: 3px 0; } nav a:hover, nav a:focus-visible { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.lead { font-size: 1.22rem; line-height: 1.45; font-weight: 560; max-width: 62ch; margin: 4px 0 10px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; margin: 18px 0; }
.card, .work { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 16px 20px; } .card p { font-size: 0.95rem; } .card p:first-of-type { font-weight: 600; }
.work { padding: 20px 24px 14px; margin: 18px 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 4px; padding: 0; list-style: none; font-size: 0.9rem; }
.legend li { display: flex; align-items: center; gap: 6px; } .legend svg { width: 34px; height: 14px; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 6px 22px; }
figure { margin: 6px 0; min-width: 0; } figcaption { font-weight: 560; color: var(--ink); margin-bottom: 2px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: inherit; font-size: 12.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .e { text-anchor: end; } svg .c { text-anchor: middle; } svg .h { font-weight: 640; fill: var(--ink); } svg .v { fill: var(--ink); }
svg .g { stroke: var(--line); stroke-width: 1; } svg .d { stroke-dasharray: 2 3; } svg .a { stroke: var(--strong); stroke-width: 1; }
svg .l { fill: none; stroke-width: 2; stroke-linejoin: round; } svg .w { fill: none; stroke-width: 1.2; opacity: .75; }
svg .m { stroke: var(--card); stroke-width: 1.3; } svg .q { stroke: var(--strong); stroke-width: 1; opacity: .55; } svg .qm { fill: var(--soft); }
svg .r { stroke: var(--real); stroke-width: 2; } svg .rm { fill: var(--real); stroke: var(--card); stroke-width: 1.3; }
${looks.map(look => `svg .l.s${look}, svg .w.s${look} { stroke: var(--s${look}); } svg .m.s${look} { fill: var(--s${look}); } ${dashes[look] === undefined ? '' : `svg .l.s${look} { stroke-dasharray: ${dashes[look]}; }`}`).join('\n')}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; color: var(--soft); padding: 4px 0 8px; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child, th.name, td.name { text-align: left; } thead th { color: var(--soft); font-weight: 560; border-bottom-color: var(--strong); }
tbody th { font-weight: 560; } td.best { background: var(--good); font-weight: 680; } td small { color: var(--soft); font-size: 0.82em; }
table.tight th, table.tight td { padding: 6px 8px; }
details { margin: 8px 0 4px; } summary { cursor: pointer; color: var(--soft); font-size: 0.9rem; width: fit-content; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 8px 0; font-size: 0.92rem; } .facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
footer { padding-top: 36px; padding-bottom: 56px; }
@media (max-width: 640px) { main, header, footer { padding-left: 14px; padding-right: 14px; } .work { padding: 14px 12px 8px; } .panels { grid-template-columns: 1fr; } .facts { grid-template-columns: 1fr; } }
@media print {
  @page { size: landscape; margin: 12mm; }
  html { font-size: 12.5px; } body { font-size: 1rem; } main, header, footer { max-width: none; padding: 0; } header { padding-top: 0; }
  nav, details { display: none; } .work, .card, figure, tr { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  .panels { grid-template-columns: repeat(3, 1fr); gap: 4px 12px; } .cards { grid-template-columns: repeat(3, 1fr); } .work, .card { border-radius: 4px; }
  h2 { margin-top: 28px; } .scroll { overflow: visible; } table { font-size: 0.82rem; } th, td, table.tight th, table.tight td { padding: 3px 5px; white-space: normal; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`
