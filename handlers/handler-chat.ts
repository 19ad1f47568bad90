import { chatMessage, fillTemplate, templateRule } from '../plugin/chat-text.js'
import { type Action, defineHandler } from '../plugin/handler.js'
import { deliver, httpSettings, previewOf } from '../plugin/http-delivery.js'

export default defineHandler({
  name: 'handler-chat',
  summary: 'Sends a message to Slack, Mattermost, or whatever takes JSON at a webhook.',
  description: `\`slack\` and \`mattermost\` are messages with colour, the facts as fields and the output in a block. What checks print calls nobody and formats nothing: markup and mentions in it are taken away their meaning.

With \`"format": "template"\` the message is \`template\`, any JSON value, with tokens in its texts: \`:::headline:::\`, \`:::state:::\`, \`:::subject:::\`, \`:::since:::\`, \`:::output:::\` and \`:::link:::\` stand for what the other formats say, any other
name for what the event has there (\`:::check.status:::\`, \`:::client.environment|none:::\`). A text that is one token and nothing else becomes the value itself, a number for example. Values are cut at 4,000 characters and go as they are; what markup in
them means is up to who receives them.

\`\`\`json
{"format": "template", "template": {"msgtype": "m.text", "body": ":::headline:::\\n:::link:::", "status": ":::check.status:::"}}
\`\`\``,
  settings: {
    webhook_url: {
      type: 'secret',
      protocols: ['https', 'http'],
      required: true,
      summary: 'The incoming webhook. It is a secret: who has it can write to the channel.',
    },
    format: {
      type: 'choice',
      choices: ['slack', 'mattermost', 'template'],
      default: 'slack',
      summary: 'What the message looks like.',
    },
    template: { type: 'json', rule: templateRule, summary: 'The message of the format `template`.' },
    channel: { type: 'text', summary: "Another channel than the webhook's, where the chat allows that." },
    username: { type: 'text', summary: "Another name than the webhook's, where the chat allows that." },
    mention: {
      type: 'text',
      summary:
        'Put in front of a new CRITICAL problem as it is, to call somebody: `<!channel>` in Slack, `@channel` in Mattermost.',
    },
    ...httpSettings,
  },
  sample: { webhook_url_file: '/etc/sensu/chat.url', format: 'slack' },
  relations: [
    ({ format, template }) => {
      if (format === 'template')
        return template === undefined ? ['template is missing: "format": "template" needs one'] : []
      return template === undefined ? [] : ['template must go with "format": "template"']
    },
    ({ format }, isGiven) => {
      const words = (['channel', 'username', 'mention'] as const).filter(isGiven)
      return format !== 'template'
        ? []
        : words.map(name => `${name} must be left out with "format": "template": write it into the template` as const)
    },
  ],
  handle(event, settings, context): Action {
    const { webhook_url: url, format, template, dashboard_url: dashboardUrl, channel, username, mention } = settings
    const message =
      format === 'template'
        ? fillTemplate(template, event, dashboardUrl)
        : chatMessage(event, format, { channel, username, mention, dashboardUrl })
    const delivery = {
      url: url.reveal(),
      headers: { 'Content-Type': 'application/json', 'User-Agent': 'sensu-kvm' },
      body: JSON.stringify(message),
    }
    return {
      preview: previewOf(delivery, [], true),
      async run() {
        await deliver(delivery, settings, context)
        return `sent to ${new URL(delivery.url).origin}`
      },
    }
  },
})
