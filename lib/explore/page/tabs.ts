// The two views, files and waste, as WAI-ARIA's tabs pattern has them.

import { byId } from './elements.ts'

export function setUpTabs(): void {
  const tabs = [byId('files-tab'), byId('waste-tab')]
  const choose = (chosen: HTMLElement): void => {
    for (const tab of tabs) {
      tab.setAttribute('aria-selected', String(tab === chosen))
      tab.tabIndex = tab === chosen ? 0 : -1
      byId(tab.getAttribute('aria-controls') ?? '').hidden = tab !== chosen
    }
  }
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener('click', () => choose(tab))
    tab.addEventListener('keydown', event => {
      const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : event.key === 'Home' ? -i : event.key === 'End' ? tabs.length - 1 - i : 0
      const next = tabs[(i + step + tabs.length) % tabs.length]
      if (step === 0 || next === undefined) return
      event.preventDefault()
      choose(next)
      next.focus()
    })
  }
}
