import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connectionCode } from '../../extension/labextension/lib/snippet.js';

test('the code finds the model by its uid, quoted', () => {
  const code = connectionCode({ id: 'a"b', model_ability: ['chat', 'generate'] });
  assert.match(code, /get_model\("a\\"b"\)/);
  assert.match(code, /model\.chat\(/);
});

test('a model that cannot chat is asked to continue a text', () => {
  assert.match(connectionCode({ id: 'base', model_ability: ['generate'] }), /model\.generate\(/);
});

test('an embedding model is asked for vectors, a reranker for a ranking', () => {
  const vectors = connectionCode({ id: 'minilm', model_ability: ['embed'] });
  assert.match(vectors, /model\.embed\(/);
  assert.match(vectors, /embeddings\.create\(model="minilm"/);
  assert.doesNotMatch(vectors, /chat/);
  assert.match(connectionCode({ id: 'bge', model_ability: ['rerank'] }), /model\.rerank\(/);
});
