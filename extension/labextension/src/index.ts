import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { ModelActions } from './actions.js';
import { Client } from './client.js';
import { addOpenCommand } from './commands.js';
import { PanelModel } from './model.js';
import { XInferPanel } from './panel.js';

/** Nothing is required: the panel also shows where there is no palette, launcher or restorer, such as in Notebook 7. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-xinfer:plugin',
  description: 'A side panel that launches, watches and stops language models.',
  autoStart: true,
  optional: [ICommandPalette, ILauncher, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_xinfer');
    const { events, serverSettings } = app.serviceManager;
    const model = new PanelModel(new Client(serverSettings), events.stream);
    const panel = new XInferPanel(model, new ModelActions(model, app.commands, trans), trans);
    app.shell.add(panel, 'left', { rank: 450, type: 'XInfer' });
    restorer?.add(panel, panel.id);
    addOpenCommand(app, panel, trans, palette, launcher);
  }
};

export default plugin;
