import type { ILaunchRequest, IRegistration } from './api.js';

/** The value of the model choice that stands for a file of the user's. */
export const LOCAL_FILE = '\0file';

/** The kind of speculation that needs a second model. */
export const DRAFT_MODEL = 'draft-model';

/** What is chosen first: small, packaged, and there without a network. */
const DEMO_MODEL = 'xinfer-demo';

/** Quantizations worth starting with, best compromise of size and quality first. */
const PREFERRED = ['q4_k_m', 'q5_k_m', 'q8_0'];

/** What the launch form holds. Texts are as typed; empty means: the server decides. */
export interface IChoices {
  /** A registered model's name, or `LOCAL_FILE`. */
  model: string;
  path: string;
  size: string;
  quantization: string;
  uid: string;
  replicas: string;
  contextLength: string;
  /** Empty, `prompt-lookup` or `draft-model`. */
  speculation: string;
  /** A registered model's name or a path, for `draft-model`. */
  draftModel: string;
}

/** The form as it is first shown. */
export function firstChoices(registrations: readonly IRegistration[]): IChoices {
  const names = registrations.map(registration => registration.model_name);
  const first = names.includes(DEMO_MODEL) ? DEMO_MODEL : (names[0] ?? LOCAL_FILE);
  const empty = {
    path: '',
    size: '',
    quantization: '',
    uid: '',
    replicas: '1',
    contextLength: '',
    speculation: '',
    draftModel: ''
  };
  return withModel({ model: first, ...empty }, first, registrations);
}

/** The sizes a model comes in, in billions of parameters. */
export function sizesOf(model: string, registrations: readonly IRegistration[]): string[] {
  const specs = find(model, registrations)?.model_specs ?? [];
  return [...new Set(specs.map(spec => String(spec.model_size_in_billions ?? '')))];
}

/** The quantizations that one size of a model comes in. */
export function quantizationsOf(
  model: string,
  size: string,
  registrations: readonly IRegistration[]
): string[] {
  const specs = find(model, registrations)?.model_specs ?? [];
  const ofSize = specs.filter(spec => String(spec.model_size_in_billions ?? '') === size);
  return [...new Set(ofSize.flatMap(spec => spec.quantizations))];
}

/** The form after another model was chosen: size and quantization start over. */
export function withModel(
  choices: IChoices,
  model: string,
  registrations: readonly IRegistration[]
): IChoices {
  const size = sizesOf(model, registrations)[0] ?? '';
  return withSize({ ...choices, model }, size, registrations);
}

/** The form after another size was chosen: the quantization stays if this size has it. */
export function withSize(
  choices: IChoices,
  size: string,
  registrations: readonly IRegistration[]
): IChoices {
  const offered = quantizationsOf(choices.model, size, registrations);
  const preferred = PREFERRED.map(name => offered.find(offer => offer.toLowerCase() === name));
  const quantization = offered.includes(choices.quantization)
    ? choices.quantization
    : (preferred.find(name => name !== undefined) ?? offered[0] ?? '');
  return { ...choices, size, quantization };
}

/** The request that the form stands for. What was left empty is left out. */
export function launchRequest(
  choices: IChoices,
  registrations: readonly IRegistration[]
): ILaunchRequest {
  const request: ILaunchRequest = {};
  if (choices.model === LOCAL_FILE) {
    request.model_path = choices.path.trim();
  } else {
    const spec = find(choices.model, registrations)?.model_specs.find(
      candidate =>
        String(candidate.model_size_in_billions ?? '') === choices.size &&
        candidate.quantizations.includes(choices.quantization)
    );
    request.model_name = choices.model;
    if (spec) {
      request.model_format = spec.model_format;
      request.quantization = choices.quantization;
      if (spec.model_size_in_billions !== null) {
        request.model_size_in_billions = spec.model_size_in_billions;
      }
    }
  }
  if (choices.uid.trim()) {
    request.model_uid = choices.uid.trim();
  }
  if (choices.replicas && Number(choices.replicas) !== 1) {
    request.replica = Number(choices.replicas);
  }
  if (choices.contextLength) {
    request.context_length = Number(choices.contextLength);
  }
  if (choices.speculation) {
    request.speculation = choices.speculation;
  }
  if (choices.speculation === DRAFT_MODEL) {
    request.draft_model = choices.draftModel.trim();
  }
  return request;
}

/** The registered model of that name. */
export function find(
  model: string,
  registrations: readonly IRegistration[]
): IRegistration | undefined {
  return registrations.find(registration => registration.model_name === model);
}
