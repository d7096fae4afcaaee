// `layerstack info`

import type { Command } from 'commander'
import type { Session } from './session.ts'

export function define(command: Command, session: Session): void {
  command.action(() => session.use(async storage => {
    const info = await storage.info()
    if (session.json) { await session.printJson(info); return }
    const lines: (readonly [string, string])[] = [
      ['Containers', `${info.containers}`], ['Images', `${info.images}`], ['Layers', `${info.layers}`],
      ['Storage Driver', info.driver], ...info.status.map(([key, value]) => [` ${key}`, value] as const),
      ['Why', info.reason], ...info.others.map(({ name, reason }) => [` Not ${name}`, reason] as const),
      ['Root Dir', info.root], ['Read-only', info.readOnly ? `yes: ${info.readOnlyReason}` : 'no'], ['Durability', info.durability],
      ['Threads', `${info.threads}`], ['Jailed Extraction', info.jailed ? 'yes' : 'no: it needs CAP_SYS_CHROOT; paths are resolved by hand instead'],
      ['Native Calls', info.nativeReason === undefined ? 'yes' : `no: ${info.nativeReason}`],
      ['Kernel Version', info.kernel], ['Node Version', info.node],
    ]
    await session.print(lines.map(([key, value]) => `${key}: ${value}\n`).join(''))
  }))
}
