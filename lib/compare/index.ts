// Looking into images and comparing them, for everybody: sources, analysis, differences, and images made from images.

export { analyzeImage } from './analyze.ts'
export type { AnalyzeOptions } from './analyze.ts'
export { checkCiRules, defaultCiRules, parseCiRule, parseCiRules, readCiRules } from './ci-rules.ts'
export type { CiResult, CiRuleName, CiRules } from './ci-rules.ts'
export { compareImages } from './compare.ts'
export type { ComparedSide, CompareOptions, Difference, ImageComparison, LayerDifference, LayerFacts, TreeDifference } from './compare.ts'
export type { ConfigDifference } from './config-diff.ts'
export { efficiencyOf } from './efficiency.ts'
export { comparisonJson, differenceJson, entryJson } from './json.ts'
export { walkMerged } from './merge.ts'
export { sharedLayers } from './shared.ts'
export type { SharedLayer } from './shared.ts'
export { openImageSource } from './source.ts'
export type { OpenSourceOptions } from './source.ts'
export type {
  AnalyzedLayer, Aspect, Efficiency, EntriesOptions, ImageAnalysis, ImageSource, Inode, LayerEntry, MergedNode, PathVersion, SourceKind, SourceLayer, WastedPath,
} from './types.ts'
