-- POST /api/messages as wrk's clients send it: JSON and form bodies at random, texts of 20 to 300 characters, half
-- of the requests with an idempotency key of their own.
--
-- Arguments after `--`: a file with one API key a line, and a word that makes this run's idempotency keys its own. A
-- warm-up also gives the number of the key to begin with: it takes the keys in turn instead of at random, so that
-- the server has seen them all, and counts the answers by status (which costs wrk time).

local TEXTS = 512
local LETTERS = { "e", "t", "a", "o", "i", "n", "s", "h", "r", "d", "l", "u", "c", "m", "w", "f", "g", "y", "p", "b",
  "E", "T", "A", "0", "1", "2", "7" }
local MARKS = { ".", ",", "!", "?", "'", "&", "=", "+", "%", "\"", "/", "£", "é", "ü" }
local OUTSIDE_GSM = { "ł", "—", "日", "😀" }

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

local function random_text()
  local characters = {}
  for place = 1, math.random(20, 300) do
    local dice = math.random()
    if dice < 0.16 and place > 1 then
      characters[place] = " "
    elseif dice < 0.20 then
      characters[place] = MARKS[math.random(#MARKS)]
    else
      characters[place] = LETTERS[math.random(#LETTERS)]
    end
  end
  if math.random() < 0.05 then
    characters[#characters] = OUTSIDE_GSM[math.random(#OUTSIDE_GSM)]
  end
  return table.concat(characters)
end

local function percent_encoded(text)
  return (text:gsub("[^%w%-%._~ ]", function(byte)
    return string.format("%%%02X", byte:byte())
  end):gsub(" ", "+"))
end

local function json_escaped(text)
  return (text:gsub('["\\]', "\\%0"))
end

-- All of a request that does not depend on whose it is: the head up to the idempotency key, and the body's parts.
local function prepared(media_type, before_number, after_number)
  local length = #before_number + #"+447700900000" + #after_number
  local head = "\r\nContent-Type: " .. media_type .. "\r\nContent-Length: " .. length .. "\r\n"
  return { head = head, before = "\r\n" .. before_number .. "+447700900", after = after_number }
end

local keys, texts, request_line, unique, sent, turn

function init(args)
  keys, texts, sent = {}, {}, 0
  for line in io.lines(args[1]) do
    keys[#keys + 1] = line
  end
  math.randomseed(7919 * (number + 1))
  for _ = 1, TEXTS / 2 do
    local text = random_text()
    texts[#texts + 1] = prepared("application/json", '{"recipient":"', '","content":"' .. json_escaped(text) .. '"}')
    texts[#texts + 1] = prepared("application/x-www-form-urlencoded", "recipient=", "&content=" .. percent_encoded(text))
  end
  request_line = "POST /api/messages HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nAuthorization: "
  unique = "Idempotency-Key: " .. args[2] .. "-" .. number .. "-"
  turn = tonumber(args[3])
  if turn then
    statuses = {}
    response = function(status)
      statuses[status] = (statuses[status] or 0) + 1
    end
  end
end

function request()
  sent = sent + 1
  local text = texts[math.random(#texts)]
  local idempotency = sent % 2 == 0 and unique .. sent .. "\r\n" or ""
  -- Of the range reserved for fiction, without the numbers on which the simulated carrier plays tricks.
  local line = string.format("%03d", math.random(0, 900))
  local key = turn and keys[(turn + sent) % #keys + 1] or keys[math.random(#keys)]
  return request_line .. key .. text.head .. idempotency .. text.before .. line .. text.after
end

function done(summary, latency, _)
  local counted = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses") or {}) do
      counted[status] = (counted[status] or 0) + count
    end
  end
  local pairs_of = {}
  for status, count in pairs(counted) do
    pairs_of[#pairs_of + 1] = string.format('"%s": %d', status, count)
  end
  local failed = summary.errors
  local broken = string.format('{"connect": %d, "read": %d, "write": %d, "timeout": %d}', failed.connect, failed.read,
    failed.write, failed.timeout)
  print(string.format('RESULT {"answers": %d, "refused": %d, "broken": %s, "duration_us": %d, "p50_us": %d, "p99_us": %d, '
    .. '"statuses": {%s}}', summary.requests, failed.status, broken, summary.duration, latency:percentile(50),
    latency:percentile(99), table.concat(pairs_of, ", ")))
end
