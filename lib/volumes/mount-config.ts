// What dockerd checks of a mount object, and the mount point it makes of one. Source: moby volume/mounts/linux_parser.go (28.5); the error
// texts are its own. Pure but for the question whether a bind's source exists, which the caller may answer.

import fs from 'node:fs'
import { asStorageError, isErrno, StorageError } from '../errors.ts'
import { cleanPath, goQuote, isLocalPath } from './go-text.ts'
import { tmpfsData } from './tmpfs-options.ts'
import type { MountPoint, MountSpec, Propagation } from './types.ts'

export const propagations: readonly Propagation[] = ['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared']

export interface ValidateMountOptions {
  /** Does this path of the host exist? Default: a look at it. False: do not ask, as for `-v`, which makes a missing source. */
  readonly exists?: ((path: string) => boolean) | false
}

function sourceExists(path: string): boolean {
  try {
    fs.statSync(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false
    throw asStorageError(error, `invalid mount config for type "bind": looking for ${path}`)
  }
}

/** @throws INVALID_ARGUMENT `invalid mount path: 'x' mount path must be absolute` */
export function mustBeAbsolute(path: string): void {
  const shown = path.replaceAll('\\', '/')
  if (!shown.startsWith('/')) throw new StorageError('INVALID_ARGUMENT', `invalid mount path: '${shown}' mount path must be absolute`)
}

/** A mount's place in a container: absolute, and not `/`. @throws INVALID_ARGUMENT */
export function checkDestination(path: string): void {
  if (cleanPath(path.replaceAll('\\', '/')) === '/') throw new StorageError('INVALID_ARGUMENT', 'invalid specification: destination can\'t be \'/\'')
  mustBeAbsolute(path)
  // `\\a/../../x` passes for absolute, as backslashes count as slashes there, and would be cleaned to a path that climbs.
  mustBeAbsolute(cleanPath(path))
}

/** @throws INVALID_ARGUMENT `invalid mount config for type "bind": …` */
export function validateMount(mount: MountSpec, options: ValidateMountOptions = {}): void {
  try {
    check(mount, options.exists ?? sourceExists)
  } catch (error) {
    if (!StorageError.is(error, 'INVALID_ARGUMENT')) throw error
    throw new StorageError('INVALID_ARGUMENT', `invalid mount config for type ${goQuote(mount.Type ?? '')}: ${error.message}`, error.info, { cause: error })
  }
}

const invalid = (message: string): StorageError => new StorageError('INVALID_ARGUMENT', message)
type OptionsKey = 'BindOptions' | 'VolumeOptions' | 'ImageOptions'

function check(mount: MountSpec, exists: ((path: string) => boolean) | false): void {
  const { Source: source = '', Target: target = '', VolumeOptions: volume } = mount
  const forbid = (...keys: readonly OptionsKey[]): void => {
    for (const key of keys) if (mount[key] !== undefined) throw invalid(`field ${key} must not be specified`)
  }
  const needSource = (): void => { if (source === '') throw invalid('field Source must not be empty') }
  if (target === '') throw invalid('field Target must not be empty')
  checkDestination(target)
  switch (mount.Type) {
    case 'bind': {
      needSource()
      const propagation = mount.BindOptions?.Propagation
      if (propagation && !propagations.includes(propagation as Propagation)) throw invalid(`invalid propagation mode: ${propagation}`)
      forbid('VolumeOptions', 'ImageOptions')
      mustBeAbsolute(source)
      if (exists !== false && mount.BindOptions?.CreateMountpoint !== true && !exists(source)) throw invalid(`bind source path does not exist: ${source}`)
      return
    }
    case 'volume':
      forbid('BindOptions', 'ImageOptions')
      if (volume?.Subpath) {
        if (source === '') throw invalid('must not set Subpath when using anonymous volumes')
        if (!isLocalPath(volume.Subpath)) throw invalid('subpath must be a relative path within the volume')
      }
      if (mount.ReadOnly === true && source === '') throw invalid('must not set ReadOnly mode when using anonymous volumes')
      return
    case 'tmpfs':
      forbid('BindOptions', 'ImageOptions')
      if (source !== '') throw invalid('field Source must not be specified')
      tmpfsData(mount.TmpfsOptions, mount.ReadOnly === true)
      return
    case 'image':
      forbid('BindOptions', 'VolumeOptions')
      needSource()
      if (mount.ImageOptions?.Subpath && !isLocalPath(mount.ImageOptions.Subpath)) throw invalid('subpath must be a relative path within the volume')
      return
    default:
      throw invalid('mount type unknown')
  }
}

/**
 * The mount point that dockerd makes of a mount object (ParseMountSpec). `mode` is that of `-v`.
 * @throws INVALID_ARGUMENT as validateMount
 */
export function mountPointOf(mount: MountSpec, options: ValidateMountOptions & { readonly mode?: string } = {}): MountPoint {
  validateMount(mount, options)
  const { Type: type = '', Source: source = '', Target: target = '', VolumeOptions: volume } = mount
  const isVolume = type === 'volume', spreads = type === 'bind' || type === 'image'
  return {
    Type: type, Name: isVolume ? source : '', Source: type === 'bind' ? cleanPath(source) : type === 'image' ? source : '',
    Destination: cleanPath(target), RW: mount.ReadOnly !== true, Driver: isVolume ? volume?.DriverConfig?.Name ?? '' : '',
    Mode: options.mode ?? '', Propagation: spreads ? mount.BindOptions?.Propagation || 'rprivate' : '',
    CopyData: isVolume && volume?.NoCopy !== true, Spec: mount,
  }
}
