// Docker's volume plugin.

export { serveVolumes } from './server.ts'
export type { ServeVolumesOptions, VolumeServer } from './server.ts'
