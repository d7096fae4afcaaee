// The page's style sheet. Light and dark by `light-dark()`, so that a theme is one property; sizes in rem, so that the reader's own setting counts.

export const style = `
:root {
  color-scheme: light dark;
  --paper: light-dark(#fdfdfc, #15171a); --panel: light-dark(#f5f5f2, #1b1e22); --ink: light-dark(#1c1e21, #e7e8ea); --muted: light-dark(#5a5f67, #a0a6af);
  --line: light-dark(#e1e2de, #2c3036); --strong-line: light-dark(#8b9098, #6d747d); --accent: light-dark(#0a58a8, #82b9ff); --chosen: light-dark(#e5eef8, #1f3148);
  --hover: light-dark(#efefec, #22262b); --bar: light-dark(#c9d8e8, #2f4a68); --found: light-dark(#ffe89a, #6b5200);
  --added: light-dark(#136c37, #74d191); --modified: light-dark(#865000, #ecb750); --removed: light-dark(#ad231b, #ff928a); --waste: light-dark(#7a2f8c, #dba8ea);
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
  --row: 1.625rem;
}
:root[data-theme=light] { color-scheme: light }
:root[data-theme=dark] { color-scheme: dark }
* { box-sizing: border-box }
html { font: 100%/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif }
body { margin: 0; background: var(--paper); color: var(--ink); font-size: .875rem; height: 100dvh; display: grid; grid-template-rows: auto minmax(0, 1fr) }
h1, h2, h3, p, dl, dd, ol, ul, pre, fieldset, figure { margin: 0; padding: 0; border: 0; min-width: 0 }
ol, ul { list-style: none }
h1 { font-size: 1.375rem; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere }
h2 { font-size: .8125rem; font-weight: 650 }
button, input, select { font: inherit; color: inherit }
button { cursor: pointer; background: none; border: 1px solid var(--line); border-radius: .375rem; padding: .1875rem .625rem; min-height: 1.75rem }
button:hover { background: var(--hover) }
.link { border: 0; padding: 0; min-height: 0; background: none; color: var(--accent); text-align: start; font: inherit; overflow-wrap: anywhere }
.link:hover { text-decoration: underline; background: none }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px }
[hidden] { display: none !important }
.mono, .path, .command { font-family: var(--mono); font-size: .8125rem }
.number { font-variant-numeric: tabular-nums; white-space: nowrap }
.muted { color: var(--muted) }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
.escape { color: var(--removed); border: 1px solid currentColor; border-radius: .1875rem; padding: 0 .125rem; margin: 0 .0625rem; font-size: .85em }
bdi { unicode-bidi: isolate }
.skip { position: absolute; inset-inline-start: -100rem }
.skip:focus { inset-inline-start: 1rem; top: .5rem; background: var(--paper); padding: .25rem .5rem; z-index: 2 }

.top { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-end; padding: 1rem 1.25rem .875rem; border-bottom: 1px solid var(--line) }
.title { flex: 1 1 18rem; min-width: 0 }
.title p { color: var(--muted); margin-top: .25rem; overflow-wrap: anywhere }
.figures { display: flex; flex-wrap: wrap; gap: .75rem 1.75rem }
.figures dt { color: var(--muted); font-size: .75rem }
.figures dd { font-size: 1.25rem; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -.01em }
.figures .wasted dd { color: var(--waste) }
.figures svg { margin-top: .1875rem }

svg.bar { display: block; width: 100%; height: .25rem; border-radius: .125rem; background: var(--line); overflow: hidden }
svg.bar rect { fill: var(--accent) }
svg.bar .lost { fill: var(--waste) }

main { display: grid; grid-template-columns: minmax(15rem, 20rem) minmax(0, 1fr) minmax(15rem, 20rem); min-height: 0 }
.layers, .details { overflow-y: auto; background: var(--panel); padding: .875rem 1rem 2rem }
.layers { border-inline-end: 1px solid var(--line) }
.details { border-inline-start: 1px solid var(--line) }
.layers h2, .details h2 { margin-bottom: .5rem }

.stack li { position: relative; margin-bottom: .125rem }
.stack label { display: grid; grid-template-columns: 1.75rem minmax(0, 1fr) auto; gap: .125rem .25rem; padding: .5rem .625rem .5rem .375rem; border-radius: .375rem; cursor: pointer; border: 1px solid transparent }
.stack li:not(:has(input:checked)) label:hover { background: var(--hover) }
.stack input { position: absolute; opacity: 0; inset: .75rem auto auto .5rem; pointer-events: none }
.stack li:has(input:checked) { background: var(--chosen); box-shadow: inset .1875rem 0 var(--accent); border-radius: .375rem }
.stack input:focus-visible + label { outline: 2px solid var(--accent); outline-offset: 1px }
.stack .index { color: var(--muted); text-align: end; padding-inline-end: .375rem; font-variant-numeric: tabular-nums; font-size: .8125rem; line-height: 1.45 }
.stack .brief { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden; overflow-wrap: anywhere; line-height: 1.4; max-height: 2.8em }
.stack .weight { font-weight: 600 }
.stack svg { grid-column: 2 / 4; margin: .25rem 0 .125rem }
.stack .counts { grid-column: 2 / 4; color: var(--muted); font-size: .75rem; display: flex; flex-wrap: wrap; gap: 0 .75rem }
.stack .step { padding: .125rem .625rem .125rem 2.375rem; color: var(--muted); font-size: .75rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.more { display: none; padding: .375rem .625rem .75rem 2.375rem; font-size: .8125rem }
.stack li:has(input:checked) .more { display: block }
.more .command { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .75rem; max-height: 14rem; overflow-y: auto; margin-bottom: .5rem }
.facts-list { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .125rem .75rem }
.facts-list dt { color: var(--muted) }
.facts-list dd { overflow-wrap: anywhere }
.facts-list .mono { font-size: .6875rem; line-height: 1.4 }

.browse { display: grid; grid-template-rows: auto minmax(0, 1fr); min-height: 0; min-width: 0 }
.views { display: flex; align-items: flex-start; justify-content: space-between; gap: .5rem; padding: .5rem 1rem 0; border-bottom: 1px solid var(--line) }
[role=tablist] { display: flex; gap: .25rem }
#theme { color: var(--muted); font-size: .75rem; border-color: transparent }
[role=tab] { border: 0; border-radius: .375rem .375rem 0 0; padding: .375rem .75rem .5rem; color: var(--muted) }
[role=tab] span { font-weight: 400; color: var(--waste); padding-inline-start: .25rem }
[role=tab][aria-selected=true] { color: var(--ink); font-weight: 600; box-shadow: inset 0 -2px var(--accent) }
.panel { min-height: 0; display: grid }
#files { grid-template-rows: auto auto minmax(0, 1fr) auto }
.tools { display: flex; flex-wrap: wrap; gap: .5rem .75rem; align-items: center; padding: .625rem 1rem .5rem }
.tools input[type=search] { flex: 1 1 14rem; min-width: 10rem; height: 2rem; padding: 0 .625rem; background: var(--paper); border: 1px solid var(--strong-line); border-radius: .375rem }
.tools input[type=search]::placeholder { color: var(--muted); opacity: 1 }
.segments { display: flex; border: 1px solid var(--strong-line); border-radius: .375rem; overflow: clip }
.segments input { position: absolute; opacity: 0; pointer-events: none }
.segments span { display: block; padding: .3125rem .625rem; cursor: pointer; color: var(--muted) }
.segments label + label span { border-inline-start: 1px solid var(--line) }
.segments input:checked + span { background: var(--chosen); color: var(--ink); font-weight: 600 }
.segments input:focus-visible + span { outline: 2px solid var(--accent); outline-offset: -2px }
.chips { display: flex; flex-wrap: wrap; gap: .375rem }
.chips button { display: flex; gap: .375rem; align-items: center; padding: .125rem .5rem; font-size: .8125rem }
.chips button[aria-pressed=true] { background: var(--chosen); border-color: var(--accent); font-weight: 600 }
.chips button:disabled { opacity: .55; cursor: default }
#status { padding: 0 1rem .375rem; color: var(--muted); min-height: 1.625rem; font-size: .8125rem }
.footer { padding: .375rem 1rem; border-top: 1px solid var(--line); color: var(--muted); font-size: .75rem }
kbd { font: inherit; font-family: var(--mono); font-size: .6875rem; border: 1px solid var(--line); border-radius: .1875rem; padding: 0 .25rem }

.listing { display: grid; grid-template-rows: auto minmax(0, 1fr); min-height: 0; border-top: 1px solid var(--line); container-type: inline-size }
.heads, .row { display: grid; grid-template-columns: 1.75rem minmax(0, 1fr) 3.5rem 4.75rem 6rem 5.25rem 8.25rem; column-gap: .625rem; align-items: center; padding: 0 1rem 0 .5rem }
.heads { color: var(--muted); font-size: .75rem; height: 1.625rem; border-bottom: 1px solid var(--line); scrollbar-gutter: stable; overflow: hidden }
.heads span:nth-child(4) { text-align: end }
#tree { overflow: auto; position: relative; outline: none; scrollbar-gutter: stable; overflow-anchor: none }
#spacer { position: relative; overflow: hidden }
.row { position: absolute; inset-inline: 0; height: var(--row); white-space: nowrap; cursor: default; contain: layout style }
.row > span { overflow: hidden; text-overflow: ellipsis }
.row:hover { background: var(--hover) }
.row[aria-selected=true] { background: var(--chosen) }
#tree:focus-visible .row[aria-selected=true] { outline: 2px solid var(--accent); outline-offset: -2px }
.mark { display: inline-grid; place-items: center; width: 1.125rem; height: 1.125rem; font: 700 .8125rem/1 var(--mono); justify-self: center; flex: none }
.mark.added { color: var(--added); background: color-mix(in srgb, var(--added) 20%, transparent); border-radius: .1875rem }
.mark.modified { color: var(--modified); border: 1.5px solid currentColor; border-radius: 50% }
.mark.removed { color: var(--removed); border: 1.5px dashed currentColor; border-radius: .1875rem }
.mark.unmodified { color: var(--muted) }
.mark.inside { color: var(--muted); font-size: 1.125rem }
.row .name { font-family: var(--mono); font-size: .8125rem; display: flex; align-items: center; height: 100% }
.row .name > * { flex: none }
.row .twist { width: 1rem; height: 100%; display: grid; place-items: center; color: var(--muted); cursor: pointer }
.row .twist::before { content: ""; border: .25rem solid transparent; border-inline-start: .375rem solid currentColor; margin-inline-start: .25rem; border-inline-end: 0 }
.row[aria-expanded=true] .twist::before { transform: rotate(90deg) }
.row .twist.leaf::before { content: none }
.row .label { white-space: pre; flex: 0 1 auto; overflow: hidden; text-overflow: ellipsis }
.row.directory .label { font-weight: 600 }
.row.removed .label { text-decoration: line-through; color: var(--muted) }
.row .target { color: var(--muted); flex: 0 6 auto; overflow: hidden; text-overflow: ellipsis; padding-inline-start: .5rem; white-space: pre }
.row .inner { color: var(--muted); font: .75rem/1 var(--mono); padding-inline-start: .75rem; display: flex; gap: .5rem; flex: 0 1000 auto; overflow: hidden }
.row .copies { color: var(--waste); border: 1px solid currentColor; border-radius: .5rem; font-size: .6875rem; line-height: 1; padding: .0625rem .3125rem; margin-inline-start: .5rem }
.row mark, .waste mark { background: var(--found); color: inherit; border-radius: .125rem }
.row .sizebar { height: .375rem; border-radius: .1875rem; direction: rtl; overflow: visible }
.row .sizebar i { display: block; height: 100%; background: var(--bar); border-radius: inherit; min-width: 1px }
.row .size { text-align: end; font-variant-numeric: tabular-nums; font-size: .8125rem }
.row .size.none { color: var(--muted) }
.inner .plus { color: var(--added) } .inner .wave { color: var(--modified) } .inner .minus { color: var(--removed) }
.row .mode, .row .owner { font-family: var(--mono); font-size: .75rem; color: var(--muted) }
.row .time { font-variant-numeric: tabular-nums; color: var(--muted); font-size: .8125rem }
.row.removed .size { text-decoration: line-through; color: var(--muted) }
.nothing { padding: 2rem 1rem; color: var(--muted); text-align: center }

#waste { overflow: auto; padding: 1rem 1.25rem 2rem; align-content: start; gap: .875rem }
#waste .lead { max-width: 42rem }
table { border-collapse: collapse; width: 100%; font-size: .8125rem }
th { text-align: start; font-weight: 600; border-bottom: 1px solid var(--strong-line); padding: .25rem .75rem .25rem 0; white-space: nowrap; position: sticky; top: -1rem; background: var(--paper) }
th button { border: 0; padding: 0; font-weight: inherit; min-height: 1.5rem }
th[aria-sort=ascending] button::after { content: " ↑" }
th[aria-sort=descending] button::after { content: " ↓" }
td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; vertical-align: top }
th.number, td.number { text-align: end; width: 1%; padding-inline-end: 1.25rem }
td:last-child, th:last-child { width: 1%; padding-inline-end: 0 }
.paper-only { display: none }
td .bytes { color: var(--waste); font-weight: 600 }

.details .path { overflow-wrap: anywhere; font-weight: 600; margin-bottom: .625rem; outline: none }
.details .path:focus-visible { outline: 2px solid var(--accent); outline-offset: .125rem }
.details section { margin-top: 1.125rem }
.details h3 { font-size: .75rem; font-weight: 650; color: var(--muted); margin-bottom: .375rem }
.version { border-inline-start: 2px solid var(--line); padding: 0 0 .875rem .875rem; position: relative }
.version.current { border-color: var(--accent) }
.version header { display: flex; flex-wrap: wrap; gap: .375rem; align-items: center; margin-bottom: .25rem; font-weight: 600 }
.version .note { font-weight: 400; color: var(--muted) }
.version .facts-list { font-size: .8125rem }
.version strong { font-weight: 650 }
.version .was { color: var(--muted); font-weight: 400 }
.badge { color: var(--waste); font-weight: 600 }
.largest li { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: .75rem; padding: .0625rem 0 }

@container (max-width: 53rem) { .heads, .row { grid-template-columns: 1.75rem minmax(0, 1fr) 3.5rem 4.75rem 6rem 8.25rem } .c-owner { display: none } }
@container (max-width: 47rem) { .heads, .row { grid-template-columns: 1.75rem minmax(0, 1fr) 3.5rem 4.75rem 8.25rem } .c-mode { display: none } }
@container (max-width: 34rem) { .heads, .row { grid-template-columns: 1.5rem minmax(0, 1fr) 4.5rem; column-gap: .375rem; padding-inline: .25rem .75rem } .c-bar, .c-time { display: none } .row .inner { display: none } }
@media (max-width: 75rem) {
  main { grid-template-columns: minmax(13rem, 17rem) minmax(0, 1fr); grid-template-rows: minmax(0, 1fr) minmax(8rem, 34%) }
  .layers { grid-row: 1 / 3 }
  .details { border-inline-start: 0; border-top: 1px solid var(--line) }
}
@media (max-width: 46rem) {
  body { display: block; height: auto }
  main { display: block }
  .layers, .details { overflow: visible; border: 0; border-bottom: 1px solid var(--line) }
  .stack { max-height: 28rem; overflow-y: auto }
  .top { gap: .75rem 1.5rem }
  .figures { gap: .5rem 1.25rem }
  #files { grid-template-rows: auto auto 32rem auto }
  .footer { display: none }
  .row { --row: 1.625rem }
  #waste { overflow-x: auto }
}
@media (prefers-reduced-motion: no-preference) { .row .twist::before { transition: transform .08s } }
@media (forced-colors: active) {
  .row[aria-selected=true], .stack li:has(input:checked), .segments input:checked + span, .chips button[aria-pressed=true] { outline: 2px solid Highlight; outline-offset: -2px }
  .mark.added { border: 2px solid currentColor }
}
@media print {
  :root, :root[data-theme=dark] { color-scheme: light; --paper: #fff; --panel: #fff }
  html { font-size: 80% }
  @page { margin: 1.5cm }
  body, main, .browse, .panel { display: block; height: auto }
  .layers { border: 0; padding: .75rem 0; overflow: visible }
  .top { padding-inline: 0 }
  .skip, .views, #files, .details, #waste-more, .stack input, .stack .brief { display: none !important }
  #waste, #waste[hidden] { display: block !important; overflow: visible; padding: .75rem 0 }
  #waste h2 { display: block }
  .stack { max-height: none; overflow: visible }
  .stack li { break-inside: avoid; background: none !important; box-shadow: none !important }
  .paper-only { display: block }
  .stack label { padding: .25rem 0; grid-template-columns: 1.75rem 6rem minmax(0, 1fr) }
  .stack .counts { grid-column: 3; grid-row: 1 }
  .stack .step { padding-inline-start: 2rem; white-space: normal; overflow-wrap: anywhere }
  .more { display: block; padding: 0 0 .5rem 2rem }
  .more .command { max-height: none; overflow: visible }
  svg.bar, .sizebar i { print-color-adjust: exact }
  th { position: static }
  tr { break-inside: avoid }
  #waste .lead { margin-bottom: .75rem }
}
`
