import type { IModel } from './api.js';

/**
 * Python that uses a running model from a notebook of this server.
 *
 * It holds no address and no key: the client finds the server that runs the kernel, and its identity there.
 */
export function connectionCode(model: Pick<IModel, 'id' | 'model_ability'>): string {
  const uid = JSON.stringify(model.id);
  const ask = model.model_ability.includes('generate') && !model.model_ability.includes('chat');
  return [
    'from jupyter_xinfer import Client',
    '',
    `model = Client().get_model(${uid})`,
    ask ? 'print(model.generate("Once upon a time"))' : 'print(model.chat("Hello!"))',
    '',
    '# With the openai package; address and key are filled in:',
    '# messages = [{"role": "user", "content": "Hello!"}]',
    `# model.openai().chat.completions.create(model=${uid}, messages=messages)`
  ].join('\n');
}
