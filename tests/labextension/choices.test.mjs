import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  firstChoices,
  launchRequest,
  LOCAL_FILE,
  quantizationsOf,
  sizesOf,
  withModel,
  withSize
} from '../../extension/labextension/lib/choices.js';

const spec = (size, ...quantizations) => ({
  model_format: 'ggufv2',
  model_size_in_billions: size,
  quantizations
});
const registered = (name, ...specs) => ({ model_name: name, model_specs: specs });

const qwen = registered('qwen', spec('0_6', 'Q2_K', 'Q8_0'), spec(8, 'Q4_K_M', 'Q8_0'));
const demo = registered('xinfer-demo', spec(null, 'q8_0'));
const registrations = [qwen, demo];

test('the demo model is chosen first, wherever it stands in the list', () => {
  const choices = firstChoices(registrations);
  assert.equal(choices.model, 'xinfer-demo');
  assert.equal(choices.quantization, 'q8_0');
});

test('without a demo model the first one is chosen, without any a local file', () => {
  assert.equal(firstChoices([qwen]).model, 'qwen');
  assert.equal(firstChoices([]).model, LOCAL_FILE);
});

test('quantizations are those of the chosen size', () => {
  assert.deepEqual(sizesOf('qwen', registrations), ['0_6', '8']);
  assert.deepEqual(quantizationsOf('qwen', '8', registrations), ['Q4_K_M', 'Q8_0']);
});

test('a model starts with its first size and a quantization worth starting with', () => {
  const choices = withModel(firstChoices(registrations), 'qwen', registrations);
  assert.equal(choices.size, '0_6');
  assert.equal(choices.quantization, 'Q8_0');
});

test('another size keeps the quantization if it has it', () => {
  const small = withModel(firstChoices(registrations), 'qwen', registrations);
  assert.equal(withSize(small, '8', registrations).quantization, 'Q8_0');
  const rare = { ...small, quantization: 'Q2_K' };
  assert.equal(withSize(rare, '8', registrations).quantization, 'Q4_K_M');
});

test('a request names what was chosen and leaves out what was left empty', () => {
  assert.deepEqual(launchRequest(firstChoices(registrations), registrations), {
    model_name: 'xinfer-demo',
    model_format: 'ggufv2',
    quantization: 'q8_0'
  });
});

test('a size goes back to the server as the server wrote it', () => {
  const small = withModel(firstChoices(registrations), 'qwen', registrations);
  assert.equal(launchRequest(small, registrations).model_size_in_billions, '0_6');
  const large = withSize(small, '8', registrations);
  assert.equal(launchRequest(large, registrations).model_size_in_billions, 8);
});

test('a local file is launched by its path alone', () => {
  const choices = { ...firstChoices(registrations), path: ' /models/a.gguf ' };
  assert.deepEqual(launchRequest(withModel(choices, LOCAL_FILE, registrations), registrations), {
    model_path: '/models/a.gguf'
  });
});

test('a draft model is sent where it is to guess', () => {
  const choices = { ...firstChoices([]), path: '/m.gguf', draftModel: ' small.gguf ' };
  assert.deepEqual(launchRequest({ ...choices, speculation: 'prompt-lookup' }, []), {
    model_path: '/m.gguf',
    speculation: 'prompt-lookup'
  });
  assert.deepEqual(launchRequest({ ...choices, speculation: 'draft-model' }, []), {
    model_path: '/m.gguf',
    speculation: 'draft-model',
    draft_model: 'small.gguf'
  });
});

test('advanced choices are sent as numbers', () => {
  const choices = { ...firstChoices([]), uid: 'mine', replicas: '2', contextLength: '8192' };
  assert.deepEqual(launchRequest(choices, []), {
    model_path: '',
    model_uid: 'mine',
    replica: 2,
    context_length: 8192
  });
});
