# Tells a hub (lamda-node hub, or the original monitor) whether the program on this machine runs: one beat a call.
#
# Each minute, as SYSTEM (one line):
#   schtasks /Create /TN "LamdaHeartbeat" /SC MINUTE /MO 1 /F /RU SYSTEM /TR "powershell.exe -NoProfile -ExecutionPolicy Bypass -File C:\lamda\lamda-heartbeat.ps1"
#
# Settings come from C:\ProgramData\lamda\heartbeat.env (NAME=VALUE lines, only Administrators and SYSTEM should be able
# to read it), or from the environment, which goes first: SERVER_URL, SHARED_SECRET, NODE_ID, META, CHECK_PORT, PORT,
# ALLOW_REGEX, LOG_FILE, LOG_MAX_AGE, IP_CMD, GSWARM_EOA, GSWARM_PEER_IDS, GSWARM_TGID, JITTER_SEC.
#
# What must hold: the file is read, never run; the script ends in less than a minute; it exits with 0 only if the hub
# took the beat.
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
# Windows PowerShell 5.1 offers no TLS 1.2 by itself on older systems.
[Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12

$file = if ($env:ENV_FILE) { $env:ENV_FILE } else { Join-Path $env:ProgramData 'lamda\heartbeat.env' }
$written = @{}
if (Test-Path -LiteralPath $file) {
    foreach ($line in Get-Content -LiteralPath $file -Encoding UTF8) {
        if ($line -match '^\s*([A-Z][A-Z0-9_]*)\s*=\s*(.*?)\s*$') {
            $written[$Matches[1]] = $Matches[2].Trim('"', "'")
        }
    }
}

function Get-Setting([string] $name, [string] $default) {
    $set = [Environment]::GetEnvironmentVariable($name)
    if (-not [string]::IsNullOrWhiteSpace($set)) { return $set.Trim() }
    if ($written.ContainsKey($name) -and $written[$name] -ne '') { return $written[$name] }
    return $default
}

function Stop-With([string] $what) {
    [Console]::Error.WriteLine("error: $what")
    exit 1
}

$server = (Get-Setting 'SERVER_URL' '').TrimEnd('/')
$secret = Get-Setting 'SHARED_SECRET' ''
$node = Get-Setting 'NODE_ID' "$($env:COMPUTERNAME)-gensyn"
if (-not $server) { Stop-With "SERVER_URL is not set (environment, or $file)" }
if (-not $secret) { Stop-With "SHARED_SECRET is not set (environment, or $file)" }

function Test-Program {
    $regex = Get-Setting 'ALLOW_REGEX' '(rgym_exp|code_gen_exp)\.runner\.swarm_launcher|rl-swarm'
    $own = $PID
    $found = Get-CimInstance Win32_Process | Where-Object {
        $_.ProcessId -ne $own -and $_.CommandLine -and $_.CommandLine -match $regex
    }
    return [bool] $found
}

function Test-Port([int] $port) {
    $client = New-Object System.Net.Sockets.TcpClient
    try {
        return $client.ConnectAsync('127.0.0.1', $port).Wait(1500) -and $client.Connected
    } catch {
        return $false
    } finally {
        $client.Close()
    }
}

function Get-Reason {
    if (-not (Test-Program)) { return 'no_proc' }
    $port = [int] (Get-Setting 'PORT' '3000')
    if ((Get-Setting 'CHECK_PORT' 'true') -eq 'true' -and -not (Test-Port $port)) { return "port_closed_$port" }
    $log = Get-Setting 'LOG_FILE' ''
    if ($log) {
        $age = [int] (Get-Setting 'LOG_MAX_AGE' '300')
        $is_fresh = (Test-Path -LiteralPath $log) -and
            ((Get-Date) - (Get-Item -LiteralPath $log).LastWriteTime).TotalSeconds -le $age
        if (-not $is_fresh) { return 'stale_log' }
    }
    return ''
}

function Get-PublicAddress {
    try {
        $said = (Invoke-WebRequest -UseBasicParsing -Uri (Get-Setting 'IP_CMD' 'https://ifconfig.me/ip') -TimeoutSec 3).Content
        $address = $null
        if ([Net.IPAddress]::TryParse(([string] $said).Trim(), [ref] $address)) { return $address.ToString() }
    } catch { }
    return ''
}

$jitter = [Math]::Min([int] (Get-Setting 'JITTER_SEC' '5'), 30)
if ($jitter -gt 0) { Start-Sleep -Milliseconds (Get-Random -Maximum ($jitter * 1000)) }

$reason = Get-Reason
$meta = Get-Setting 'META' ''
if ($reason) { $meta = (@($meta, "reason=$reason") | Where-Object { $_ }) -join ',' }
$beat = [ordered] @{
    node_id = $node
    ip = Get-PublicAddress
    meta = $meta
    status = if ($reason) { 'DOWN' } else { 'UP' }
}
foreach ($name in 'GSWARM_EOA', 'GSWARM_PEER_IDS', 'GSWARM_TGID') {
    $value = Get-Setting $name ''
    if ($value) { $beat[$name.ToLowerInvariant()] = $value }
}
# Bytes: given a text, PowerShell 5.1 sends what is not Latin as question marks.
$body = [Text.Encoding]::UTF8.GetBytes(($beat | ConvertTo-Json -Compress))

foreach ($try in 1..4) {
    try {
        Invoke-RestMethod -Method Post -Uri "$server/api/heartbeat" -TimeoutSec 8 -ContentType 'application/json' `
            -Headers @{ Authorization = "Bearer $secret" } -Body $body | Out-Null
        Write-Output "beat node_id=$node status=$($beat.status) reason=$reason"
        exit 0
    } catch {
        $why = $_.Exception.Message
        if ($try -lt 4) { Start-Sleep -Seconds 2 }
    }
}
Stop-With "the hub at $server did not take the beat of ${node}: $why"
