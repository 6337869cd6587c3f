-- luacheck's settings. Scripts and specs are Lua 5.4.
std = "lua54"
max_line_length = 120
cache = false
ignore = {
  "212/_.*", -- arguments named as unused
  "211/_.*", "221/_.*", "231/_.*",
  "211/cleanup", -- <close> variables work by their end
}

files["spec"] = { std = "+busted" }
files["scripts/**/*_spec.lua"] = { std = "+busted" }
files[".busted"] = { std = "lua54" }

-- A config that returns nothing is itself one site: what it sets is that site's.
files["examples"] = {
  globals = {
    "listen", "hosts", "tls", "backends", "cache", "use", "trusted_proxies", "forward", "max_body", "max_headers",
    "buffer_body", "raw_target", "fail", "timeouts", "abort_on_fin", "log", "admin", "workers", "user", "drain",
    "on_connect", "on_request", "cache_key", "pick_backend", "on_store", "on_response", "on_log", "on_error",
    "on_certificate", "on_load", "on_unload",
  },
}
