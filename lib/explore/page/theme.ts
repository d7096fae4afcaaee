// Light, dark, or as the system has it; remembered where the browser lets a file remember.

import { byId } from './elements.ts'

const themes = ['auto', 'light', 'dark'] as const
const key = 'layerstack-theme'

export function setUpTheme(): void {
  const control = byId<HTMLButtonElement>('theme')
  let at = Math.max(0, themes.findIndex(theme => theme === remembered()))
  const apply = (): void => {
    const theme = themes[at]!
    if (theme === 'auto') delete document.documentElement.dataset['theme']
    else document.documentElement.dataset['theme'] = theme
    control.textContent = `Theme: ${theme}`
  }
  control.addEventListener('click', () => {
    at = (at + 1) % themes.length
    apply()
    try { localStorage.setItem(key, themes[at]!) } catch { /* a file may have no storage */ }
  })
  control.hidden = false
  apply()
}

function remembered(): string | null {
  try { return localStorage.getItem(key) } catch { return null }
}
