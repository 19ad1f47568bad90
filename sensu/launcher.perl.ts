/** What LD_BIND_NOW says for the launcher, not for its commands: a symbol that is bound at the start is not bound anew after each fork. */
export const bindNow = 'sensu-kvm-launcher'

/**
 * The launcher's program, for `perl -e` with nothing but perl-base, which Debian calls essential.
 *
 * Its descriptor 3 is a socket to the agent, on which frames go both ways: one byte that says what it is, the command's number, a
 * value (both 32 bits, big endian), and for some as many bytes as the value says.
 *
 *   R length command     to it: run this with `sh -c`
 *   C 0                  to it: nothing more is wanted of this one, its output goes nowhere
 *   H version            from it: ready
 *   P pid                from it: started, as the leader of a process group of its own
 *   O length bytes       from it: what the command wrote, error and output alike
 *   E 0                  from it: nobody holds the output's pipe any more
 *   X status             from it: ended, with the status of wait(2)
 *   F errno              from it: could not be started
 *
 * It ends when the socket does. Descriptors above 2 are closed in commands by Perl itself ($^F), and caught signals have their default
 * there again.
 */
export const launcherProgram = `
use strict;
delete $ENV{LD_BIND_NOW} if ($ENV{LD_BIND_NOW} // '') eq '${bindNow}';
$0 = 'sensu-kvm-launcher';
open my $control, '+<&=', 3 or exit 1;
pipe my $failed, my $failing or exit 1;
binmode $_ for $control, $failed, $failing;
my $ended = 0;
$SIG{CHLD} = sub { $ended = 1 };
$SIG{$_} = sub { } for qw(TERM INT HUP);

my ($in, $out, $watched) = ('', '', '');
my (%command_of_pid, %reader_of_command, %errno_of_pid);
my $wait_without_blocking = 1;
my $interrupted = 4;

sub tell_agent {
  my ($kind, $command, $value, $bytes) = @_;
  $out .= pack 'aNN', $kind, $command, $value;
  $out .= $bytes if defined $bytes;
}

sub send_all {
  while (length $out) {
    my $sent = syswrite $control, $out;
    if (defined $sent) { substr $out, 0, $sent, '' } elsif ($! != $interrupted) { exit 0 }
  }
}

sub start {
  my ($command, $text) = @_;
  pipe my $reader, my $writer or return tell_agent('F', $command, $! + 0);
  binmode $reader;
  my $pid = fork;
  return tell_agent('F', $command, $! + 0) unless defined $pid;
  if ($pid == 0) {
    setpgrp 0, 0;
    open STDOUT, '>&', $writer and open STDERR, '>&', $writer and exec { 'sh' } 'sh', '-c', $text;
    syswrite $failing, pack 'NN', $$, $! + 0;
    kill 'KILL', $$;
  }
  setpgrp $pid, $pid;
  $command_of_pid{$pid} = $command;
  $reader_of_command{$command} = $reader;
  vec($watched, fileno $reader, 1) = 1;
  tell_agent('P', $command, $pid);
}

sub forget_output {
  my ($command) = @_;
  my $reader = delete $reader_of_command{$command} or return;
  vec($watched, fileno $reader, 1) = 0;
  close $reader;
}

sub relay {
  my ($command) = @_;
  my $count = sysread $reader_of_command{$command}, my $bytes, 65536;
  return tell_agent('O', $command, $count, $bytes) if $count;
  return if !defined $count && $! == $interrupted;
  forget_output($command);
  tell_agent('E', $command, 0);
}

sub obey {
  my $count = sysread $control, $in, 65536, length $in;
  return if !defined $count && $! == $interrupted;
  exit 0 unless $count;
  while (length $in >= 9) {
    my ($kind, $command, $value) = unpack 'aNN', $in;
    my $length = $kind eq 'R' ? $value : 0;
    last if length $in < 9 + $length;
    my $text = substr $in, 9, $length;
    substr $in, 0, 9 + $length, '';
    if ($kind eq 'R') { start($command, $text) } else { forget_output($command) }
  }
}

sub reap {
  $ended = 0;
  while ((my $pid = waitpid -1, $wait_without_blocking) > 0) {
    my $status = $?;
    my $command = delete $command_of_pid{$pid};
    next unless defined $command;
    my $errno = $status == 9 ? why_not_started($pid) : undef;
    if (defined $errno) { tell_agent('F', $command, $errno) } else { tell_agent('X', $command, $status) }
  }
}

sub why_not_started {
  my ($pid) = @_;
  vec(my $readable = '', fileno $failed, 1) = 1;
  while (select(my $now = $readable, undef, undef, 0) > 0) {
    sysread $failed, my $record, 8;
    my ($who, $errno) = unpack 'NN', $record;
    $errno_of_pid{$who} = $errno;
  }
  return delete $errno_of_pid{$pid};
}

vec($watched, fileno $control, 1) = 1;
tell_agent('H', 0, 1);
while (1) {
  send_all();
  # The time is for a signal that comes just before select, and so does not end it.
  my $ready = select my $readable = $watched, undef, undef, $ended ? 0 : %command_of_pid ? 0.1 : undef;
  if ($ready > 0) {
    for my $command (keys %reader_of_command) {
      relay($command) if vec $readable, fileno $reader_of_command{$command}, 1;
    }
    obey() if vec $readable, fileno $control, 1;
  }
  reap() if $ended || $ready == 0;
}
`
