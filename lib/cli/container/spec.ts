// `layerstack container spec`

import fs from 'node:fs'
import path from 'node:path'
import { Option } from 'commander'
import type { Command } from 'commander'
import { asStorageError, isErrno, StorageError } from '../../errors.ts'
import type { Session } from '../session.ts'

interface Options {
  readonly bundle: string
  readonly network: 'none' | 'host'
  readonly tty?: boolean
  readonly readOnly?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .argument('<container>', 'a name or an id')
    .option('-b, --bundle <dir>', 'the folder that receives config.json', '.')
    .addOption(new Option('--network <how>', 'a network of its own with nothing but lo, or the host\'s').choices(['none', 'host']).default('none'))
    .option('-t, --tty', 'the process gets a terminal')
    .option('--read-only', 'the root cannot be written to')
    .addHelpText('after', '\nMounts the container\'s root and volumes, until `container umount` or the boot, and writes an OCI bundle\'s config.json.\n\n'
      + 'Example:\n  layerstack container spec -b bundle box && runc run -b bundle box; layerstack container umount box')
    .action((ref: string, { bundle, network, tty, readOnly }: Options) => session.use(async storage => {
      const file = path.resolve(bundle, 'config.json')
      if (fs.existsSync(file)) throw new StorageError('ALREADY_EXISTS', `${file} exists`, { path: file, hint: 'remove it first' })
      const { config, root, notDone } = await storage.containers.spec(ref, { ownNetwork: network === 'none', terminal: tty === true, readOnlyRoot: readOnly === true })
      try {
        fs.mkdirSync(path.dirname(file), { recursive: true })
        fs.writeFileSync(file, `${JSON.stringify(config, undefined, 2)}\n`, { flag: 'wx' })
      } catch (error) {
        await storage.containers.unmount(ref, { persistent: true })
        throw isErrno(error, 'EEXIST') ? new StorageError('ALREADY_EXISTS', `${file} exists`,
          { path: file, hint: 'remove it first' }) : asStorageError(error, `writing ${file}`)
      }
      for (const text of notDone) session.warn(text)
      if (session.json) await session.printJson({ config: file, root, notDone })
      else await session.print(`${file}\n`)
    }))
}
