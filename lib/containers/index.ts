// Containers: records in Docker's layout over container layers.

export { ContainerStore } from './store.ts'
export type { CommitOptions, CommitResult } from './commit.ts'
export type { CreateContainerOptions, MountedContainer } from './store.ts'
export { checkContainerName } from './config.ts'
export type { ContainerConfig, ContainerRecord } from './config.ts'
export type { ContainerMountOptions } from './attach.ts'
export type { ContainerMounts, MountPointRecord } from './mount-points.ts'
export { withDriver } from './state.ts'
export type { ContainerState, ContainerStatus } from './state.ts'
export { ociSpec } from './oci-spec.ts'
export type { SpecOptions } from './oci-spec.ts'
export type { PreparedMounts } from './prepare.ts'
