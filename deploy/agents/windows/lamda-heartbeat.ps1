# Tells a hub (lamda-node hub, or the original monitor) whether the program on this machine runs: one beat a call.
#
# Each minute, as SYSTEM (one line):
#   schtasks /Create /TN "LamdaHeartbeat" /SC MINUTE /MO 1 /F /RU SYSTEM /TR "powershell.exe -NoProfile -ExecutionPolicy Bypass -File C:\lamda\lamda-heartbeat.ps1"
#
# Settings come from C:\ProgramData\lamda\heartbeat.env (NAME=VALUE lines, only Administrators and SYSTEM should be able
# to read it), or from the environment, which goes first: SERVER_URL, SHARED_SECRET, NODE_ID, META, CHECK_PORT, PORT,
# ALLOW_REGEX, LOG_FILE, LOG_MAX_AGE, IP_CMD, GSWARM_EOA, GSWARM_PEER_IDS, GSWARM_TGID, JITTER_SEC.
#
# lamda-heartbeat.ps1 -Enroll CODE: gives the hub a code (lamda-node hub enroll), gets a secret of this node's own for it,
# and keeps that in the file of settings, which only Administrators and SYSTEM can read from then on.
#
# What must hold: the file is read, never run; the script ends in less than a minute; it exits with 0 only if the hub
# took the beat.
param([string] $Enroll = '')
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

# Only these may read the file, and nothing is inherited.
function Set-Private([string] $path) {
    $acl = New-Object System.Security.AccessControl.FileSecurity
    $acl.SetAccessRuleProtection($true, $false)
    foreach ($sid in 'S-1-5-18', 'S-1-5-32-544') {
        $who = New-Object System.Security.Principal.SecurityIdentifier $sid
        $acl.AddAccessRule((New-Object System.Security.AccessControl.FileSystemAccessRule $who, 'FullControl', 'Allow'))
    }
    Set-Acl -LiteralPath $path -AclObject $acl
}

function Save-Secret([string] $own) {
    $folder = Split-Path -Parent $file
    if (-not (Test-Path -LiteralPath $folder)) { New-Item -ItemType Directory -Path $folder | Out-Null }
    $kept = @()
    if (Test-Path -LiteralPath $file) {
        $kept = @(Get-Content -LiteralPath $file -Encoding UTF8 | Where-Object { $_ -notmatch '^\s*SHARED_SECRET\s*=' })
    }
    if (-not $written.ContainsKey('SERVER_URL')) { $kept += "SERVER_URL=$server" }
    if (-not $written.ContainsKey('NODE_ID')) { $kept += "NODE_ID=$node" }
    $new = "$file.new"
    # Private before there is anything in it.
    Set-Content -LiteralPath $new -Value '' -Encoding UTF8
    Set-Private $new
    Set-Content -LiteralPath $new -Value ($kept + "SHARED_SECRET=$own") -Encoding UTF8
    Move-Item -LiteralPath $new -Destination $file -Force
}

if ($Enroll) {
    try {
        $asked = [Text.Encoding]::UTF8.GetBytes((@{ code = $Enroll; node_id = $node } | ConvertTo-Json -Compress))
        $given = Invoke-RestMethod -Method Post -Uri "$server/api/enroll" -TimeoutSec 20 -ContentType 'application/json' -Body $asked
        if ($given.secret -notmatch '^[A-Za-z0-9_-]{16,128}$') { Stop-With "the hub at $server gives no secret" }
        Save-Secret $given.secret
    } catch {
        Stop-With "$node is not enrolled at ${server}: $($_.Exception.Message)"
    }
    Write-Output "enrolled $node; its secret is in $file"
    exit 0
}
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
