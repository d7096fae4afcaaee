// What check finds and how it is told: the closed list of kinds, each with its area and its weight. Types and tables only.

import type { ContainerStore } from '../containers/index.ts'
import type { Driver } from '../driver.ts'
import type { ImageStore } from '../images/index.ts'
import type { DataRoot, DiskLayerStore } from '../layers/index.ts'
import type { Snapshotter } from '../snapshots/index.ts'
import type { VolumeStore } from '../volumes/index.ts'
import type { Archives } from './archives.ts'

/**
 * `damage`: something that is named cannot be used, or will fail. `leftover`: nobody needs it, and it would stay for ever. `notice`: worth knowing, harmless;
 * a root with notices alone is clean.
 */
export type Severity = 'damage' | 'leftover' | 'notice'

export const checkAreas = ['driver', 'layers', 'images', 'containers', 'volumes', 'leftovers'] as const
export type CheckArea = (typeof checkAreas)[number]

/** Every kind of finding. New ones may come with a minor version; what one means does not change. */
export const findingKinds = {
  // The driver's home.
  'link-missing': ['driver', 'damage'],
  'link-wrong': ['driver', 'damage'],
  'link-file-damaged': ['driver', 'damage'],
  'lower-damaged': ['driver', 'damage'],
  'layer-incomplete': ['driver', 'damage'],
  'link-dangling': ['driver', 'leftover'],
  'half-made': ['driver', 'leftover'],
  'half-removed': ['driver', 'leftover'],
  'driver-orphan': ['driver', 'leftover'],
  'stray': ['driver', 'notice'],
  // The layer database.
  'layer-record-damaged': ['layers', 'damage'],
  'layer-parent-missing': ['layers', 'damage'],
  'content-missing': ['layers', 'damage'],
  'content-damaged': ['layers', 'damage'],
  'tar-split-damaged': ['layers', 'damage'],
  'layer-unused': ['layers', 'leftover'],
  'removal-unfinished': ['layers', 'leftover'],
  'write-set': ['layers', 'leftover'],
  // Images and their names.
  'image-damaged': ['images', 'damage'],
  'image-layers-missing': ['images', 'damage'],
  'image-metadata-orphan': ['images', 'leftover'],
  'image-parent-missing': ['images', 'leftover'],
  'names-damaged': ['images', 'damage'],
  'name-without-image': ['images', 'damage'],
  'distribution-damaged': ['images', 'leftover'],
  'distribution-stale': ['images', 'notice'],
  // Containers and their layers.
  'container-damaged': ['containers', 'damage'],
  'container-without-layer': ['containers', 'damage'],
  'container-volume-missing': ['containers', 'damage'],
  'container-half-made': ['containers', 'leftover'],
  'mount-record-damaged': ['containers', 'damage'],
  'mount-without-container': ['containers', 'leftover'],
  'mount-layers-missing': ['containers', 'damage'],
  'mount-parent-missing': ['containers', 'damage'],
  'mount-count-wrong': ['containers', 'leftover'],
  'stale-mount': ['containers', 'leftover'],
  // Volumes.
  'volume-half-made': ['volumes', 'leftover'],
  'volume-damaged': ['volumes', 'damage'],
  'volume-without-metadata': ['volumes', 'notice'],
  'volume-metadata-orphan': ['volumes', 'leftover'],
  'volume-database-damaged': ['volumes', 'damage'],
  'volume-reference-stale': ['volumes', 'leftover'],
  // What interrupted work left.
  'intent-left': ['leftovers', 'leftover'],
  'session-left': ['leftovers', 'leftover'],
  'temporary-file': ['leftovers', 'leftover'],
  'catalogue-damaged': ['leftovers', 'damage'],
  'set-aside': ['leftovers', 'notice'],
} as const satisfies Readonly<Record<string, readonly [CheckArea, Severity]>>

export type FindingKind = keyof typeof findingKinds

export interface Finding {
  readonly kind: FindingKind
  readonly area: CheckArea
  readonly severity: Severity
  /** What it is about: a chain id, an image's, container's or driver layer's id, a volume's name, or a file's name. */
  readonly subject: string
  /** Absolute. */
  readonly path: string
  /** Allocated bytes of what is damaged or left over; 0 for what is missing, and for records. */
  readonly sizeBytes: number
  /** What is wrong and what follows from it, as a sentence. */
  readonly reason: string
  /** What repair would do, as a sentence; absent where it would leave things alone, and then the reason says why. */
  readonly repair?: string
  /** Bytes that the repair gives back. */
  readonly gainBytes: number
  /** Images that cannot be used because of it: names where they have some, else ids. */
  readonly images?: readonly string[]
}

export interface CheckOptions {
  /** Structure alone: the content of layers is not read. Default false. */
  readonly quick?: boolean
  /** Look only there. Default: everywhere. */
  readonly only?: readonly CheckArea[]
  readonly signal?: AbortSignal | undefined
  /** Told as layers are verified. */
  readonly onProgress?: ((progress: CheckProgress) => void) | undefined
}

export interface CheckProgress {
  readonly done: number
  readonly total: number
  /** Of the layers' tars, verified so far. */
  readonly bytes: number
}

/** The stores of one storage. */
export interface CheckParts {
  readonly root: DataRoot
  readonly driver: Driver
  readonly layers: DiskLayerStore
  readonly images: ImageStore
  readonly containers: ContainerStore
  readonly snapshots: Snapshotter
  readonly volumes: VolumeStore
  /** The name of the operation that we are a part of, which is not somebody else's work. */
  readonly ownIntent?: string
}

/** When a mend's turn comes: what was interrupted is undone before anything is judged, what others stand on is mended before them, and orphans go last. */
export type Phase = 'settle' | 'structure' | 'content' | 'catalogue' | 'remove'

/** A finding in the making, with the deed behind its `repair`. */
export interface Problem {
  readonly kind: FindingKind
  readonly subject: string
  readonly path: string
  readonly reason: string
  readonly repair?: string
  readonly images?: readonly string[]
  /** Default `remove`. */
  readonly phase?: Phase
  /** Allocated bytes of it, counted only when it is told. Default 0. */
  readonly measure?: () => Promise<number>
  /** The repair gives those bytes back. Default false. */
  readonly gains?: boolean
  /** It cannot be proved to be nobody's: then it weighs no more than a notice. */
  readonly doubtful?: boolean
  /** Looks again before it acts. Returns why it left things alone, as a sentence. */
  readonly mend?: (tools: MendTools) => Mended | Promise<Mended>
}

export type Mended = void | { readonly left: string }

export interface MendTools extends CheckParts {
  readonly archives: Archives
  readonly signal: AbortSignal | undefined
}
