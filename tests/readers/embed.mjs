// Embeds the texts given on stdin (JSON) with transformers.js, from the repo in the folder argv[2]/argv[3].
import { env, pipeline } from '@huggingface/transformers';

const [root, name] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = root;

let text = '';
for await (const chunk of process.stdin) text += chunk;
const embed = await pipeline('feature-extraction', name, { dtype: 'fp32', device: 'cpu' });
const output = await embed(JSON.parse(text), { pooling: 'mean', normalize: true });
console.log(JSON.stringify(output.tolist()));
