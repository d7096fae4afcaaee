// Layers and container layers in Docker's layer database.

export { ensureDir, imageDir, layerDb, ownState } from './data-root.ts'
export { RwLayers, treeOf } from './rw-layers.ts'
export type { CreateRwOptions } from './rw-layers.ts'
export { DiskLayerStore, openLayerStore } from './store.ts'
export type { DataRoot, Durability, Layer, LayerSource, LayerStore, LayerToRegister, Operation, RegisteredLayer } from './types.ts'
