# Runs lamda-node's sidecar within WSL at each start of Windows, and again whenever it ends: the programs that it
# watches run in WSL, too. As Administrator:
#   powershell.exe -NoProfile -ExecutionPolicy Bypass -File lamda-node-sidecar.ps1
#   powershell.exe -NoProfile -ExecutionPolicy Bypass -File lamda-node-sidecar.ps1 -Remove
# Without -Account Windows runs it as who calls this, while he is logged in: a distribution of WSL belongs to one
# account. With -Account it asks for the password, and runs it without a login.
#
# lamda-node must be in the distribution as /usr/local/bin/lamda-node, and its settings in /etc/lamda-node/sidecar.toml.
param(
    [string] $Distribution = '',
    [string] $User = 'root',
    [string] $Account = '',
    [string] $TaskName = 'LamdaNodeSidecar',
    [switch] $Remove
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

function Stop-With([string] $what) {
    [Console]::Error.WriteLine("error: $what")
    exit 1
}

if ($Remove) {
    Unregister-ScheduledTask -TaskName $TaskName -Confirm:$false
    Write-Output "removed the task $TaskName"
    exit 0
}

# They become arguments of wsl.exe.
foreach ($name in $Distribution, $User) {
    if ($name -and $name -notmatch '^[A-Za-z0-9._-]{1,64}$') { Stop-With "'$name' has letters that no name has" }
}
$wsl = Join-Path $env:SystemRoot 'System32\wsl.exe'
if (-not (Test-Path -LiteralPath $wsl)) { Stop-With 'WSL is not installed: wsl --install' }

$words = @()
if ($Distribution) { $words += '--distribution', $Distribution }
$words += '--user', $User, '--exec', '/usr/local/bin/lamda-node'
& $wsl @($words + '--version') | Out-Null
if ($LASTEXITCODE -ne 0) { Stop-With 'there is no /usr/local/bin/lamda-node in the distribution' }

$run = @('--exec', '/usr/bin/env', 'SIDECAR_CONFIG=/etc/lamda-node/sidecar.toml',
    'DATA_DIR=/var/lib/lamda-node-sidecar', '/usr/local/bin/lamda-node', 'sidecar')
$words = @($words | Where-Object { $_ -ne '--exec' -and $_ -ne '/usr/local/bin/lamda-node' }) + $run
$action = New-ScheduledTaskAction -Execute $wsl -Argument ($words -join ' ')
# One that ended is started again within a minute; one that runs is left alone.
$again = New-ScheduledTaskSettingsSet -MultipleInstances IgnoreNew -ExecutionTimeLimit ([TimeSpan]::Zero) `
    -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1) -StartWhenAvailable `
    -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries

if ($Account) {
    $secret = Read-Host -AsSecureString "The password of $Account"
    $plain = (New-Object Management.Automation.PSCredential($Account, $secret)).GetNetworkCredential().Password
    Register-ScheduledTask -TaskName $TaskName -Action $action -Settings $again -Force `
        -Trigger (New-ScheduledTaskTrigger -AtStartup) -User $Account -Password $plain | Out-Null
} else {
    Register-ScheduledTask -TaskName $TaskName -Action $action -Settings $again -Force `
        -Trigger (New-ScheduledTaskTrigger -AtLogOn -User $env:USERNAME) | Out-Null
}
Start-ScheduledTask -TaskName $TaskName
Write-Output "the task $TaskName runs: http://localhost:8080/health"
