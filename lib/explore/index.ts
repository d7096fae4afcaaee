// Looking at an image: one HTML page.

export { exploreImage } from './explore.ts'
export type { ExploreOptions } from './explore.ts'
