/** What the server says, as it says it. Memory is in bytes, rates are tokens per second. */

export type ModelState =
  'placing' | 'downloading' | 'loading' | 'ready' | 'draining' | 'failed' | 'sleeping';

export interface IReplica {
  replica_id: string;
  node: string;
  state: string;
  progress: number;
  /** Of the model's file while it is downloaded. */
  bytes_done: number;
  bytes_total: number;
  message: string;
  restarts: number;
  tokens_per_second: number;
  kv_used: number;
  kv_total: number;
  /** Mean of its last steps, each of which gives every running request a token. */
  step_seconds: number;
  /** Since its start, as are the following. */
  prompt_tokens: number;
  cached_tokens: number;
  drafted_tokens: number;
  accepted_tokens: number;
}

export interface IModel {
  id: string;
  model_name: string;
  model_engine: string;
  model_format: string;
  quantization: string | null;
  context_length: number | null;
  model_ability: string[];
  /** `LLM`, `embedding` or `rerank`. */
  model_type?: string;
  model_path?: string | null;
  /** How many replicas are wanted. */
  replica: number;
  state: ModelState;
  /** From 0 to 1, over all replicas. */
  progress: number;
  message: string;
  memory_bytes: number;
  replicas: IReplica[];
  running: number;
  waiting: number;
  tokens_per_second: number;
}

export interface ICluster {
  state: 'stopped' | 'starting' | 'running' | 'unreachable' | 'failed';
  scheduler: string | null;
  message: string;
}

export interface IInfo {
  version: string;
  cluster: ICluster;
  /** The path of the proxied Dask dashboard on this server, or null while there is none. */
  dashboard: string | null;
}

export interface ISpec {
  model_format: string;
  model_size_in_billions: number | string | null;
  quantizations: string[];
}

export interface IRegistration {
  model_name: string;
  model_description: string;
  context_length?: number | null;
  model_specs: ISpec[];
}

export interface ILaunchRequest {
  model_name?: string;
  model_path?: string;
  model_uid?: string;
  model_format?: string;
  model_size_in_billions?: number | string;
  quantization?: string;
  replica?: number;
  context_length?: number;
  speculation?: string;
  draft_model?: string;
}
