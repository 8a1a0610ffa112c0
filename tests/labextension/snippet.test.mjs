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
