// Layers and container layers in Docker's layer database.

export { buildCacheDir, buildCacheReferences, readBuildCache } from './build-cache.ts'
export type { BuildCache } from './build-cache.ts'
export { ensureDir, imageDir, layerDb, ownState } from './data-root.ts'
export { RwLayers, treeOf } from './rw-layers.ts'
export type { CreateRwOptions } from './rw-layers.ts'
export { driverLayersInUse } from './in-use.ts'
export { allIntents } from './intents.ts'
export { tarSplitName } from './layer-files.ts'
export { readRwFiles, rwLayerIds } from './rw-files.ts'
export { DiskLayerStore, openLayerStore } from './store.ts'
export type { DataRoot, Durability, Layer, LayerSource, LayerStore, LayerToRegister, Operation, RegisteredLayer } from './types.ts'
