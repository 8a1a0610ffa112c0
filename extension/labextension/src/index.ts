import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-xinfer:plugin',
  description: 'Launch, watch and stop language models.',
  autoStart: true,
  activate: (app: JupyterFrontEnd): void => {
    void app.commands;
  }
};

export default plugin;
