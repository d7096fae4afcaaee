// Branded ids and digests: strings that only the parsers here can make, so that an unchecked name never becomes a path.

import { createHash, randomBytes } from 'node:crypto'
import { StorageError } from './errors.ts'

declare const digestBrand: unique symbol
declare const layerIdBrand: unique symbol
declare const chainIdBrand: unique symbol

/** `sha256:` and 64 lower-case hex digits (OCI image spec, descriptor.md § Digests; sha256 only, as in Docker). */
export type Digest = string & { readonly [digestBrand]: true }
/** The digest that names a layer on top of its parents. */
export type ChainId = Digest & { readonly [chainIdBrand]: true }
/** What a driver knows a layer by: one path component, opaque to everybody else. */
export type LayerId = string & { readonly [layerIdBrand]: true }

const digestPattern = /^sha256:[a-f0-9]{64}$/
const layerIdPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/

export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && digestPattern.test(text)
}

/** @throws StorageError INVALID_ARGUMENT */
export function parseDigest(text: string): Digest {
  if (!isDigest(text)) throw new StorageError('INVALID_ARGUMENT', `invalid digest ${JSON.stringify(text)}: expected sha256: and 64 hex digits`)
  return text
}

export function isLayerId(text: unknown): text is LayerId {
  return typeof text === 'string' && layerIdPattern.test(text)
}

/** @throws StorageError INVALID_ARGUMENT */
export function parseLayerId(text: string): LayerId {
  if (!layerIdPattern.test(text)) {
    throw new StorageError('INVALID_ARGUMENT', `invalid layer id ${JSON.stringify(text)}: expected 1 to 128 of A-Z a-z 0-9 _ . -, starting with a letter or digit`)
  }
  return text as LayerId
}

// Drawn for many names at once: each call of the generator costs 2 to 8 µs, and a container's life has seven.
let drawn = Buffer.alloc(0), drawnAt = 0

/** As many random bytes, at most 1024, none of them used before. The memory is the pool's: take what is needed at once. */
export function randomBytesOf(count: number): Buffer {
  if (drawnAt + count > drawn.length) {
    drawn = randomBytes(1024)
    drawnAt = 0
  }
  return drawn.subarray(drawnAt, drawnAt += count)
}

/** `count` random bytes in hex. */
export function randomHex(count: number): string {
  return randomBytesOf(count).toString('hex')
}

/** 32 random bytes in hex: the form of Docker's cache ids, mount ids and container ids. */
export function randomId(): LayerId {
  return randomHex(32) as LayerId
}

export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length)
}

export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest
}

/**
 * chain(L1) = diff(L1); chain(L1…Ln) = sha256(chain(L1…Ln-1) + " " + diff(Ln)).
 * Source: OCI image spec, config.md § Layer ChainID.
 */
export function chainIdOf(parent: ChainId | undefined, diffId: Digest): ChainId {
  return (parent === undefined ? diffId : sha256(`${parent} ${diffId}`)) as ChainId
}

/** sha256 of 1024 zero bytes, the empty tar: a layer that Docker records as `empty_layer` and never stores. */
export const emptyTarDigest = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef' as Digest
