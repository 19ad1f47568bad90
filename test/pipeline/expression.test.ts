import t from 'tap'
import { compileExpression } from '../../pipeline/expression.js'
import { Float } from '../../sensu/json-value.js'
import { separateTokens } from '../../sensu/tokens.js'
import type { Json, JsonObject } from '../../sensu/types.js'

/** A Sunday, 14:05:09 local time. */
const now = new Date(2026, 10, 22, 14, 5, 9)

function holds(expression: string, value: Json = null): boolean {
  return compileExpression(expression)(value, now)
}

const truths: [expression: string, value?: Json][] = [
  // the forms that Sensu's own documentation shows
  ['value == 1 || value % 60 == 0', 120],
  ['value == 1 || value % 60 == 0', 1],
  ['value > 3', 4],
  ['value.to_i >= 3', '3'],
  ['[0,1,2].include?(Time.at(value).wday) || true', 0],
  ['Time.now.hour.between?(9, 17)'],
  ['(9..17).include?(Time.now.hour) && !Time.now.saturday?'],
  ['!Time.now.wday.between?(1, 5)'],
  ['Time.now.strftime("%H:%M") == "14:05"'],
  ['Time.now.to_i - value.to_i < 600', Math.floor(now.getTime() / 1000) - 10],
  ['value.nil? || value < 3'],
  ['value =~ /^db-\\d+$/', 'db-12'],
  ['value !~ /test/', 'production'],
  ['value.match(/prod|stage/i)', 'PRODUCTION'],
  ['value.match?(/^second$/)', 'first\nsecond'],
  ['%w[prod stage].include?(value)', 'prod'],
  ["value.include?('web') and not value.include?('db')", ['web', 'app']],
  ['value.any? { |name| name.start_with?("web") }', ['db1', 'web1']],
  ['value.count { |status| status != "0" } > 1', ['0', '1', '2']],
  ['value.last(3).uniq == ["2"] && value.first(1) == ["0"] && value.last(9).size == 4', ['0', '2', '2', '2']],
  ['value.map(&:to_i).max == 2 && value.none?(&:empty?)', ['0', '2']],
  ['value.round(1) == 2.5 && value.round == 2', new Float(2.46)],
  ['value[-1] == "2" && value[-2] == "0"', ['0', '2']],
  ['value[:tier] == "gold" && value.key?(:site)', { tier: 'gold', site: 'x' }],
  ['value.dig(:a, :b) == 1', { a: { b: 1 } }],
  ['value.split(",").map { |part| part.strip }.include?("b")', 'a, b'],
  ['value ? value.length > 2 : false', 'abc'],
  ['(value || 5) == 5'],
  ['value&.length.nil?'],
  // calls without parentheses
  ["value.include? 'web'", ['web', 'app']],
  ["value.include?('web') && value.include? 'app'", ['web', 'app']],
  ['value.match? /^db/ and value.end_with? "1", "2"', 'db-2'],
  ['value.nil? ? true : false', null],
  ['value.key? :site', { site: 'x' }],
  ['value.any? { |name| name.start_with? "w" }', ['web']],
  ['Time.now.hour.between? 9, 17'],
  // the same moment elsewhere
  ['Time.at(0).utc.hour == 0 && Time.at(86_399).getutc.strftime("%a %H:%M") == "Thu 23:59"'],
  ['(Time.at(0).utc + 3600).hour == 1 && Time.at(5).utc == Time.at(5)'],
  // numbers as Ruby has them
  ['-7 / 2 == -4 && -7 % 3 == 2'],
  ['7 / 2 == 3 && 7 / 2.0 == 3.5 && 1 == 1.0'],
  ['2 + 3 * 4 - 1 == 13 && (2 + 3) * 4 == 20'],
  ['value == 12345678901234567890', 12345678901234567890n],
  ['value.to_f > 0.5', '0.75'],
  ['value == 1', new Float(1)],
  ['(1_000 <=> 1000) == 0'],
  // truth: 0 and the empty text are true
  ['value', 0],
  ['value', ''],
  ['value =~ /x/ || "no"', 'a'],
]

t.test('expressions that hold', async t => {
  for (const [expression, value] of truths) t.ok(holds(expression, value), expression)
})

const falsehoods: [expression: string, value?: Json][] = [
  [''],
  ['   '],
  ['nil'],
  ['value', null],
  ['value == "5"', 5],
  ['value =~ /x/', null],
  ['value["tier"] == "gold"', { tier: 'gold' }],
  ['value > 3 && value < 5', 9],
  ['/\\Asecond/ =~ value', 'first\nsecond'],
  ['not value', true],
]

t.test('expressions that do not', async t => {
  for (const [expression, value] of falsehoods) t.notOk(holds(expression, value), expression)
})

t.test('what is not in the language is refused when it is read, with the place', async t => {
  const refused: [expression: string, reason: RegExp][] = [
    ['syntax error (', /unknown name syntax at character 1/],
    ['(value', /it ends too early/],
    ["value = 'x'; true", /unexpected = at character 7/],
    ['`id`', /unexpected ` at character 1/],
    ['system("id")', /unknown name system/],
    ['value.instance_eval("exit")', /unknown method instance_eval at character 7/],
    ['value.send(:exit)', /unknown method send/],
    ['value.constructor', /unknown method constructor/],
    ['File.read("/etc/passwd")', /unknown name File/],
    ['Time.sleep', /unexpected sleep/],
    ['"#{value}" == "x"', /texts with #/],
    ['value =~ /(/', /Invalid regular expression/],
    ['value.any? { name == 1 }', /unexpected name/],
    ['value.any?(&:exit)', /unknown method :exit at character 13/],
    ['value.any?(&value)', /unknown method value/],
    ['value & 1 == 1', /unexpected & at character 7/],
    // what would be heeded in Ruby
    ['value.split(",", 2).size == 2', /split with 2 arguments is not supported at character 7/],
    ['value.to_i(16) > 3', /to_i with an argument is not supported/],
    ['value.sum { |x| x.to_i } > 3', /sum with a block is not supported/],
    ['value.index { |x| x == "2" } == 0', /index with a block is not supported/],
    ['value.map.size > 3', /map needs a block/],
    ['value.empty? "x"', /unexpected "x" at character 14/],
    ['value.any? { |x| x } && x', /unknown name x/],
    [`${'('.repeat(60)}1${')'.repeat(60)}`, /nested deeper/],
    [`value == '${'x'.repeat(10_000)}'`, /longer than/],
  ]
  for (const [expression, reason] of refused) {
    t.throws(() => compileExpression(expression), { name: 'ExpressionError', message: reason }, expression.slice(0, 50))
  }
})

/** An expression with tokens, for the client's attributes. */
function holdsFor(expression: string, attributes: JsonObject, value: Json = null): boolean {
  const { text, values } = separateTokens(expression, attributes)
  return compileExpression(text, values)(value, now)
}

t.test('the value of a token is a value wherever it stands', async t => {
  const client = {
    name: 'db-1.x',
    limit: 5,
    low: -5,
    off: false,
    quoted: '"a"',
    days: '1, 2',
    list: ['a', 'b'],
    nothing: 'nil',
  }
  const forms: [expression: string, value?: Json][] = [
    ["value == ':::name:::'", 'db-1.x'],
    ['value == "host :::name:::"', 'host db-1.x'],
    ['value =~ /^:::name:::$/', 'db-1.x'],
    ['%w[x :::name:::].include?(value)', 'db-1.x'],
    ['value % :::limit::: == 0 && value >= :::missing|10:::', 10],
    ['value == :::low::: && value - :::low::: == 0', -5],
    ['value == :::off:::', false],
    ['value == :::quoted:::', 'a'],
    ['[:::days:::].include?(value)', 2],
    [':::list:::.include?(value)', 'b'],
    ['value == :::nothing:::', null],
  ]
  for (const [expression, value] of forms) t.ok(holdsFor(expression, client, value), expression)
  t.notOk(holdsFor('value =~ /^:::name:::$/', client, 'db-1_x'), 'no pattern')
})

t.test('what a client calls itself adds nothing to an expression', async t => {
  const evil = [
    "x' || 'y",
    `' || "${'a'.repeat(40)}!" =~ /^(a+)+$/ || '`,
    '" || "y',
    '(a+)+',
    '/ || /',
    "\\'",
    '\ue0000\ue001',
  ]
  for (const name of evil) {
    t.notOk(holdsFor("value == ':::name:::'", { name }, 'fine'), name)
    t.notOk(holdsFor('value == ":::name:::"', { name }, 'fine'), name)
    t.notOk(holdsFor('value =~ /^:::name:::$/', { name }, `${'a'.repeat(40)}!`), name)
    t.ok(holdsFor("value == ':::name:::'", { name }, name), name)
  }
  for (const name of ['value', '1 || true', 'Time.now', '/x/', '(1)', '1 + 1', '{', '(a+)+', "x' || 'y"])
    t.throws(() => holdsFor('value == :::name:::', { name }), { name: 'ExpressionError' }, name)
})

t.test('what a value cannot do is an error when it is evaluated', async t => {
  const failing: [expression: string, value: Json, reason: string][] = [
    ['value > 1', null, "undefined method `>' for nil"],
    ['value + 1 > 0', null, "undefined method `+' for nil"],
    ['value > 1', 'a', 'comparison of a text with a number failed'],
    ['value.include?("x")', 5, "undefined method `include?' for a number"],
    ['1 / value == 0', 0, 'divided by 0'],
  ]
  for (const [expression, value, message] of failing) {
    t.throws(() => holds(expression, value), { message }, expression)
  }
})
