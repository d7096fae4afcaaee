// Platforms as OCI indexes name them (os/architecture/variant), and which of several images fits this machine. Knows Go's names of things.

import { endianness } from 'node:os'
import { StorageError } from '../errors.ts'

export interface Platform {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
}

/** What uname(1) and Debian call them. */
const aliases: ReadonlyMap<string, string> = new Map([
  ['x86_64', 'amd64'], ['x86-64', 'amd64'], ['aarch64', 'arm64'], ['i386', '386'], ['armhf', 'arm'], ['armel', 'arm'],
])
const goArchitectures: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', mipsel: 'mipsle', mips64el: 'mips64le' }

/** This machine's, in Go's words. */
export function hostPlatform(): Platform {
  const { arch } = process
  const architecture = arch === 'ppc64' ? (endianness() === 'LE' ? 'ppc64le' : 'ppc64') : goArchitectures[arch] ?? arch
  return { os: 'linux', architecture }
}

/** `linux/arm64/v8`, `linux/amd64`, `arm64`. @throws INVALID_ARGUMENT */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split('/')
  if (parts.length > 3 || parts.some(part => !/^[a-z0-9_.-]+$/.test(part))) {
    throw new StorageError('INVALID_ARGUMENT', `invalid platform ${JSON.stringify(text)}`,
      { hint: 'write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64' })
  }
  const [first = '', second, variant] = parts
  if (second === undefined) return first === 'linux' ? hostPlatform() : { os: 'linux', architecture: goName(first) }
  return { os: first, architecture: goName(second), ...(variant === undefined ? {} : { variant }) }
}

function goName(architecture: string): string {
  return aliases.get(architecture) ?? architecture
}

export function platformString({ os, architecture, variant }: Platform): string {
  return `${os}/${architecture}${variant === undefined ? '' : `/${variant}`}`
}

/** `arm` alone means v7 and `arm64` means v8 (containerd's platforms.Normalize). */
function variantOf({ architecture, variant = '' }: Platform): string {
  if (architecture === 'arm64') return variant === '' ? 'v8' : variant
  if (architecture === 'arm') return variant === '' ? 'v7' : variant
  return variant
}

/** How well an image suits: 0 not at all, higher is better. An older variant of arm runs on a newer one. */
export function platformFit(wanted: Platform, offered: Platform): number {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return 0
  const want = variantOf(wanted), have = variantOf(offered)
  if (want === have) return 100
  const wantNumber = Number(/^v(\d)/.exec(want)?.[1]), haveNumber = Number(/^v(\d)/.exec(have)?.[1])
  if (wanted.architecture.startsWith('arm')) return haveNumber < wantNumber ? haveNumber : 0
  if (wanted.architecture === 'amd64') {
    // v2 and up need newer processors: the baseline suits everybody, and without a wish it comes before them.
    if (have === '' || have === 'v1') return 50
    if (want === '' || want === 'v1') return 1
    return haveNumber < wantNumber ? haveNumber : 0
  }
  return want === '' || have === '' ? 50 : 0
}
