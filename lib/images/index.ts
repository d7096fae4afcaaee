// Images and their names: Docker's image store on disk, and image archives in and out.

export type { ArchiveSource } from './archive.ts'
export { applyChanges } from './changes.ts'
export { chainIdsOf, decodeConfig, encodeConfig, imageIdOf, runtimeConfig } from './config.ts'
export type { HistoryEntry, ImageConfig } from './config.ts'
export { goTime } from './json.ts'
export { hostPlatform, parsePlatform, platformString } from './platform.ts'
export type { Platform } from './platform.ts'
export { familiarName, familiarString, fullName, fullString, isTag, parseReference, tagNameOnly } from './reference.ts'
export type { Reference } from './reference.ts'
export { openImageStore } from './store.ts'
export { tarLength } from './tar-length.ts'
export type {
  CreateImageOptions, HistoryItem, ImageInspect, ImageRecord, ImageStore, ImageStoreOptions, ImageSummary, ImageUser, ImportOptions, ListFilter,
  ListOptions, LoadedImage, LoadOptions, LoadProgress, RemovedItem, RemoveOptions, RenamedImage, SaveOptions, SaveToFileOptions, UserSource,
} from './types.ts'
